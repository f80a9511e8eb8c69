"""ONNX: one file, any batch size, run by onnxruntime."""

from __future__ import annotations

from typing import Final, Literal

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.batches import check_batches
from ecd_deploy.exporters.context import ExportContext
from ecd_deploy.exporters.contract import ParityBudget, StudentBuilder
from ecd_deploy.exporters.metadata import ArtefactMetadata, describe, parse_metadata
from ecd_deploy.exporters.onnx_graph import check_embedded, check_interface, get_metadata, set_metadata
from ecd_deploy.exporters.onnx_session import open_session, session_predictor
from ecd_deploy.exporters.onnx_translation import translate
from ecd_deploy.exporters.paths import refuse_local_paths
from ecd_deploy.exporters.preprocessing import put_preprocessing_inside
from ecd_deploy.measure.prediction import Predictor
from ecd_deploy.split import SplitStudent


class OnnxFormat:
    """What all ONNX formats share: how they are run, and where their metadata are."""

    format: str

    def open(self, data: bytes, build: StudentBuilder, *, threads: int = 1) -> Predictor:  # noqa: ARG002
        """Start onnxruntime on the CPU; see `Exporter`."""
        return open_onnx(data, threads, self.format)

    def read_metadata(self, data: bytes) -> ArtefactMetadata:
        """Read the metadata; see `Exporter`."""
        return parse_metadata(get_metadata(parse_model(data, self.format)), self.format)


class OnnxExporter(OnnxFormat):
    """Writes a graph with its weights inside; batch normalisation is folded into the convolutions.

    Args:
        opset: of the standard operators, asserted from what was written.
        preprocessing: whether the graph itself normalises uint8 pixels.
    """

    format = "onnx"
    filename = "student.onnx"
    runtime: Final = "onnxruntime"
    budget: ParityBudget | None = None

    def __init__(self, opset: int = 20, preprocessing: Literal["outside", "inside"] = "outside") -> None:
        self._opset = opset
        self._preprocessing: Literal["outside", "inside"] = preprocessing

    def export(
        self,
        student: SplitStudent,
        metadata: ArtefactMetadata,
        context: ExportContext | None = None,  # noqa: ARG002
    ) -> bytes:
        """Write the student; see `Exporter`."""
        described = describe(student, metadata).model_copy(update={"preprocessing": self._preprocessing})
        model = translate(student, self._opset)
        if self._preprocessing == "inside":
            put_preprocessing_inside(model, described)
        return finish(model, described, self.format)


def finish(model: onnx.ModelProto, metadata: ArtefactMetadata, format_name: str) -> bytes:
    """Write the metadata into a model, check all that `Exporter` promises, and return its bytes.

    Raises:
        ExportError: a promise is broken.
    """
    set_metadata(model, metadata.model_dump_json())
    check_embedded(model)
    check_interface(model, metadata)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the {format_name} model does not pass the checker: {error}") from error
    data: bytes = model.SerializeToString(deterministic=True)
    refuse_local_paths(data, format_name)
    check_batches(open_onnx(data, 1, format_name), metadata.input_shape, len(metadata.classes), format_name)
    return data


def open_onnx(data: bytes, threads: int, format_name: str) -> Predictor:
    """Start onnxruntime on an ONNX artefact.

    Raises:
        ExportError: the bytes are no ONNX artefact, lack metadata, or keep tensors in another file.
    """
    model = parse_model(data, format_name)
    check_embedded(model)
    metadata = parse_metadata(get_metadata(model), format_name)
    return session_predictor(open_session(data, threads, format_name), metadata)


def parse_model(data: bytes, format_name: str) -> onnx.ModelProto:
    """Parse ONNX bytes.

    Raises:
        ExportError: they are none.
    """
    try:
        return onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ExportError(f"not an {format_name} artefact: {error}") from error
