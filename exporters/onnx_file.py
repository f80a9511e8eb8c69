"""ONNX: one file, any batch size, run by onnxruntime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import onnxruntime as ort
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from torch import nn

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.batches import check_batches
from ecd_deploy.exporters.contract import StudentBuilder
from ecd_deploy.exporters.metadata import INPUT_NAME, OUTPUT_NAME, ArtefactMetadata, describe, parse_metadata
from ecd_deploy.exporters.onnx_graph import (
    check_embedded,
    check_interface,
    check_opset,
    get_metadata,
    set_metadata,
    strip_provenance,
)
from ecd_deploy.exporters.paths import refuse_local_paths
from ecd_deploy.measure.prediction import Predictor
from ecd_deploy.split import SplitStudent

_ERRORS_ONLY = 3


class OnnxExporter:
    """Writes a graph with its weights inside; batch normalisation is folded into the convolutions.

    Args:
        opset: of the standard operators, asserted from what was written.
    """

    format = "onnx"
    filename = "student.onnx"

    def __init__(self, opset: int = 20) -> None:
        self._opset = opset

    def export(self, student: SplitStudent, metadata: ArtefactMetadata) -> bytes:
        """Write the student; see `Exporter`."""
        described = describe(student, metadata)
        model = _translated(student.module, student.example_shape, self._opset)
        check_opset(model, self._opset)
        strip_provenance(model)
        set_metadata(model, described.model_dump_json())
        check_embedded(model)
        check_interface(model, student.example_shape, len(described.classes))
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ExportError(f"the ONNX model does not pass the checker: {error}") from error
        data: bytes = model.SerializeToString(deterministic=True)
        refuse_local_paths(data, self.format)
        check_batches(_predictor(data, 1), student.example_shape, len(described.classes), self.format)
        return data

    def open(self, data: bytes, build: StudentBuilder, *, threads: int = 1) -> Predictor:  # noqa: ARG002
        """Start onnxruntime on the CPU; see `Exporter`."""
        check_embedded(_parsed(data))
        return _predictor(data, threads)

    def read_metadata(self, data: bytes) -> ArtefactMetadata:
        """Read the metadata; see `Exporter`."""
        return parse_metadata(get_metadata(_parsed(data)), self.format)


def _translated(module: nn.Module, image_shape: tuple[int, int, int], opset: int) -> onnx.ModelProto:
    try:
        with _library_quiet():
            program = torch.onnx.export(
                module,
                (torch.zeros(2, *image_shape),),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
                optimize=True,
                verbose=False,
            )
    except Exception as error:
        raise ExportError(f"ONNX cannot express the student: {error}") from error
    if program is None:
        raise ExportError("torch.onnx.export returned no program")
    return program.model_proto


@contextmanager
def _library_quiet() -> Iterator[None]:
    """Keep the exporter's warnings and log lines in here: what they warn of is asserted from the written model."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _parsed(data: bytes) -> onnx.ModelProto:
    try:
        return onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ExportError(f"not an ONNX artefact: {error}") from error


def _predictor(data: bytes, threads: int) -> Predictor:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"onnxruntime cannot open the ONNX artefact: {error}") from error

    def predict(images: NDArray[np.float32]) -> NDArray[np.float32]:
        (logits,) = session.run([OUTPUT_NAME], {INPUT_NAME: images})
        result: NDArray[np.float32] = logits
        return result

    return predict
