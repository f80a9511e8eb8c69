"""What all ONNX formats share: how they are finished, opened and read, and how others are made from the fp32 file."""

from __future__ import annotations

from typing import Final

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.budget import ParityBudget
from ecd_deploy.exporters.checks import checked
from ecd_deploy.exporters.contract import ExportInput, StudentBuilder
from ecd_deploy.exporters.files.contents import Contents
from ecd_deploy.exporters.files.metadata import ArtefactMetadata, parse_metadata
from ecd_deploy.exporters.onnx.contents import read_onnx
from ecd_deploy.exporters.onnx.graph import check_embedded, check_interface, get_metadata, set_metadata
from ecd_deploy.exporters.onnx.session import open_session, session_predictor
from ecd_deploy.exporters.source_file import SourceFile, source_file
from ecd_deploy.measure.predictors.prediction import Predictor


class OnnxFormat:
    """How an ONNX file is run and read; unless a format says otherwise, it is made from the fp32 one."""

    format: str
    runtime: Final = "onnxruntime"
    budget: ParityBudget | None = None
    derived_from: str | None = "onnx"

    def open(self, data: bytes, build: StudentBuilder, *, threads: int = 1) -> Predictor:  # noqa: ARG002
        """Start onnxruntime on the CPU; see `Exporter`."""
        return open_onnx(data, threads, self.format)

    def read_metadata(self, data: bytes) -> ArtefactMetadata:
        """Read the metadata; see `Exporter`."""
        return _metadata_of(parse_model(data, self.format), self.format)

    def contents(self, data: bytes) -> Contents:
        """Read initialisers and constants; see `Exporter`."""
        return read_onnx(parse_model(data, self.format), data)


def fp32_source(given: ExportInput, format_name: str) -> SourceFile:
    """The fp32 ONNX file that another format is made from; see `source_file`."""
    return source_file(given, format_name, "onnx", lambda data: _metadata_of(parse_model(data, "onnx"), "onnx"))


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
    return checked(data, lambda written: open_onnx(written, 1, format_name), metadata, format_name)


def open_onnx(data: bytes, threads: int, format_name: str) -> Predictor:
    """Start onnxruntime on an ONNX artefact.

    Raises:
        ExportError: the bytes are no ONNX artefact, lack metadata, or keep tensors in another file.
    """
    model = parse_model(data, format_name)
    check_embedded(model)
    return session_predictor(open_session(data, threads, format_name), _metadata_of(model, format_name))


def _metadata_of(model: onnx.ModelProto, format_name: str) -> ArtefactMetadata:
    return parse_metadata(get_metadata(model), format_name)


def parse_model(data: bytes, format_name: str) -> onnx.ModelProto:
    """Parse ONNX bytes.

    Raises:
        ExportError: they are none.
    """
    try:
        return onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ExportError(f"not an {format_name} artefact: {error}") from error
