"""LiteRT's `.tflite`, for phones and boards: the extra `[litert]`, which brings the interpreter."""

from __future__ import annotations

from typing import Final

from ecd_deploy.exporters.checks import checked
from ecd_deploy.exporters.contract import ExportInput, StudentBuilder
from ecd_deploy.exporters.files.contents import Contents
from ecd_deploy.exporters.files.metadata import METADATA_KEY, ArtefactMetadata, parse_metadata
from ecd_deploy.exporters.litert.contents import read_tflite
from ecd_deploy.exporters.litert.converter import convert, stamp
from ecd_deploy.exporters.litert.layout import read_layout
from ecd_deploy.exporters.pytorch.pt2 import Pt2Exporter
from ecd_deploy.exporters.runtimes import one_by_one, opened_in
from ecd_deploy.exporters.source_file import source_file
from ecd_deploy.measure.predictors.prediction import Predictor


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
        source = source_file(given, self.format, self.derived_from, Pt2Exporter().read_metadata)
        described = source.metadata.model_copy(update={"batch": 1})
        data = stamp(convert(source.data, described.input_shape), described)
        return checked(data, lambda written: litert_predictor(written, 1), described, self.format)


def litert_predictor(data: bytes, threads: int) -> Predictor:
    """Load a model; images (N, C, H, W) are given to it one after the other.

    Raises:
        ExportError: it is none, or the extra is not there.
    """
    read_layout(data)
    return one_by_one(opened_in("litert", data, threads))
