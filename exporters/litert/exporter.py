"""LiteRT's `.tflite`, for phones and boards: the extra `[litert]`, which brings the interpreter."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.checks import checked
from ecd_deploy.exporters.contents import Contents
from ecd_deploy.exporters.contract import ExportInput, StudentBuilder
from ecd_deploy.exporters.litert.contents import read_tflite
from ecd_deploy.exporters.litert.converter import convert, missing, stamp
from ecd_deploy.exporters.litert.layout import read_layout
from ecd_deploy.exporters.metadata import METADATA_KEY, ArtefactMetadata, describe, parse_metadata
from ecd_deploy.exporters.pytorch.pt2 import Pt2Exporter
from ecd_deploy.files import sha256_bytes
from ecd_deploy.measure.prediction import Predictor


class LiteRtFormat:
    """How a model of LiteRT is opened and read, whatever its numbers are."""

    runtime: Final = "litert"
    format: str

    def open(self, data: bytes, build: StudentBuilder, *, threads: int = 1) -> Predictor:  # noqa: ARG002
        """Load the model; it is given one image after the other."""
        return litert_predictor(data, threads)

    def read_metadata(self, data: bytes) -> ArtefactMetadata:
        """Read the metadata, without LiteRT; see `Exporter`."""
        texts = [text.content for text in read_layout(data).texts if text.name == METADATA_KEY]
        return parse_metadata(texts[0].decode(errors="replace") if texts else None, self.format)

    def contents(self, data: bytes) -> Contents:
        """Read the buffers; see `Exporter`."""
        return read_tflite(data)


class LiteRtExporter(LiteRtFormat):
    """Writes the pt2 student as litert-torch converts it, for one image at a time."""

    format = "litert"
    filename = "student.tflite"
    budget = None
    derived_from = "pt2"

    def export(self, given: ExportInput) -> bytes:
        """Write the student; see `Exporter`."""
        described = describe(given.student, given.metadata)
        if given.source is None or Pt2Exporter().read_metadata(given.source) != described:
            raise ExportError("litert is made from the pt2 artefact of the same export, and none was given")
        described = described.model_copy(update={"batch": 1, "derived_from": sha256_bytes(given.source)})
        data = stamp(convert(given.source, described.input_shape), described)
        return checked(data, lambda written: litert_predictor(written, 1), described, self.format)


def litert_predictor(data: bytes, threads: int) -> Predictor:
    """Load a model; images (N, C, H, W) are given to it one after the other.

    Raises:
        ExportError: it is none, or the extra is not there.
    """
    read_layout(data)
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise missing(error) from error
    try:
        interpreter: Any = Interpreter(model_content=data, num_threads=threads)
        interpreter.allocate_tensors()
    except Exception as error:
        reraise_machine_fault(error)
        raise ExportError(f"LiteRT cannot open the artefact: {error}") from error
    (image,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()

    def logits_of(one: NDArray[np.float32]) -> NDArray[np.float32]:
        interpreter.set_tensor(image["index"], one[np.newaxis])
        interpreter.invoke()
        result: NDArray[np.float32] = interpreter.get_tensor(logits["index"])
        return result

    return lambda images: np.concatenate([logits_of(one) for one in images])
