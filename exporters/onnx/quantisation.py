"""Static quantisation by onnxruntime: calibrated once, then written with any choice of float nodes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.files.metadata import INPUT_NAME
from ecd_deploy.exporters.preprocessing import preprocessing_nodes
from ecd_deploy.quiet import library_quiet
from ecd_deploy.recipe.export import Int8Config

Images = NDArray[np.float32] | NDArray[np.uint8]

_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
_LARGEST_BATCH = 32
_FORMATS = {"qoperator": QuantFormat.QOperator, "qdq": QuantFormat.QDQ}

# Operators that onnxruntime quantises and a CNN's weights and activations pass through.
_OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat")


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Images in batches of one size: onnxruntime stacks what it collects of each for a histogram."""

    def __init__(self, images: Images) -> None:
        size = next(size for size in range(_LARGEST_BATCH, 0, -1) if len(images) % size == 0)
        self._left = iter([images[start : start + size] for start in range(0, len(images), size)])

    def get_next(self) -> dict[str, Images] | None:
        batch = next(self._left, None)
        return None if batch is None else {INPUT_NAME: batch}


@dataclass(frozen=True)
class Quantiser:
    """A calibrated model; made by `calibrated`."""

    nodes: tuple[str, ...]
    """That are quantised unless they are told to stay in float; in the order of the graph."""
    _source: Path
    _ranges: Path
    _config: Int8Config

    def quantise(self, nodes: Sequence[str]) -> onnx.ModelProto:
        """Quantise these nodes, and leave all others in float.

        Raises:
            ExportError: onnxruntime cannot quantise the model.
        """
        if not nodes:  # onnxruntime takes an empty list for "all"
            return onnx.load_model(self._source)
        config = self._config
        target = self._source.with_name("quantised.onnx")
        try:
            with library_quiet():
                quantize_static(
                    self._source,
                    target,
                    None,
                    quant_format=_FORMATS[config.quant_format],
                    op_types_to_quantize=list(_OPERATORS),
                    per_channel=config.per_channel,
                    reduce_range=config.reduce_range,
                    activation_type=QuantType.QUInt8 if config.target == "x86" else QuantType.QInt8,
                    weight_type=QuantType.QInt8,
                    nodes_to_quantize=list(nodes),
                    calibrate_method=_METHODS[config.method],
                    calibration_cache_path=self._ranges,
                    extra_options=_extra_options(config),
                )
        except Exception as error:
            reraise_machine_fault(error)
            raise ExportError(f"onnxruntime cannot quantise the student: {error}") from error
        return onnx.load_model(target)


@contextmanager
def calibrated(model: onnx.ModelProto, images: Images, config: Int8Config) -> Iterator[Quantiser]:
    """Calibrate a model on any number of images (N, ...); the quantiser works as long as the context is open.

    Raises:
        ExportError: onnxruntime cannot calibrate the model.
    """
    excluded = set(preprocessing_nodes(model))
    nodes = tuple(node.name for node in model.graph.node if node.op_type in _OPERATORS and node.name not in excluded)
    with tempfile.TemporaryDirectory() as folder:
        source, ranges = Path(folder) / "source.onnx", Path(folder) / "ranges.json"
        onnx.save_model(model, source)
        try:
            with library_quiet():
                quantize_static(
                    source,
                    Path(folder) / "first.onnx",
                    _Batches(images),
                    op_types_to_quantize=list(_OPERATORS),
                    calibrate_method=_METHODS[config.method],
                    calibration_cache_path=ranges,
                    extra_options=_extra_options(config),
                )
        except Exception as error:
            reraise_machine_fault(error)
            raise ExportError(f"onnxruntime cannot calibrate the student: {error}") from error
        yield Quantiser(nodes, source, ranges, config)


def _extra_options(config: Int8Config) -> dict[str, float]:
    return {"CalibPercentile": config.percentile} if config.method == "percentile" else {}
