"""A copy of a model in INT8, by onnxruntime's own static quantisation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, images: NDArray[np.float32]) -> None:
        self._batches: Iterator[dict[str, NDArray[np.float32]]] = iter(
            [{name: images[place : place + 1]} for place in range(len(images))]
        )

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._batches, None)


def quantise(model: Path, target: Path, input_name: str, images: NDArray[np.float32], *, per_channel: bool) -> None:
    """Write a model in INT8, calibrated with inputs (N, C, H, W); its last layers stay in float.

    Args:
        model: in float32.
        target: where the copy is written.
        input_name: of the model's input.
        images: what the activations' ranges are taken from.
        per_channel: whether each output channel has a scale of its own, which needs opset 13.
    """
    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(model, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        target,
        _Images(input_name, images),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
        op_types_to_quantize=["Conv"],
        reduce_range=True,  # without VNNI, 8 bits of both overflow on x86
    )
    prepared.unlink()
