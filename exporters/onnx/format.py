"""What all ONNX formats share: how they are finished, opened and read, and how others are made from the fp32 file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.budget import ParityBudget
from ecd_deploy.exporters.checks import checked
from ecd_deploy.exporters.contents import Contents
from ecd_deploy.exporters.contract import ExportInput, StudentBuilder
from ecd_deploy.exporters.metadata import ArtefactMetadata, describe, parse_metadata
from ecd_deploy.exporters.onnx.contents import read_onnx
from ecd_deploy.exporters.onnx.graph import check_embedded, check_interface, get_metadata, set_metadata
from ecd_deploy.exporters.onnx.session import open_session, session_predictor
from ecd_deploy.files import sha256_bytes
from ecd_deploy.measure.prediction import Predictor


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
        return parse_metadata(get_metadata(parse_model(data, self.format)), self.format)

    def contents(self, data: bytes) -> Contents:
        """Read initialisers and constants; see `Exporter`."""
        return read_onnx(parse_model(data, self.format), data)


@dataclass(frozen=True)
class Fp32Source:
    """The fp32 ONNX file that another format is made from.

    Attributes:
        data: its bytes.
        metadata: its own, with its digest as what they are derived from.
    """

    data: bytes
    metadata: ArtefactMetadata


def fp32_source(given: ExportInput, format_name: str) -> Fp32Source:
    """Check that the file to start from is that of the student.

    Raises:
        ExportError: there is none, it is no ONNX artefact, its metadata are others, or they do not fit the student.
    """
    described = describe(given.student, given.metadata)
    if given.source is None:
        raise ExportError(f"{format_name} is made from the onnx artefact, and none was given")
    found = parse_metadata(get_metadata(parse_model(given.source, "onnx")), "onnx")
    if found != described.model_copy(update={"preprocessing": found.preprocessing}):
        raise ExportError(f"the onnx artefact that {format_name} is made from has the metadata of another export")
    return Fp32Source(given.source, found.model_copy(update={"derived_from": sha256_bytes(given.source)}))


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
