"""OpenVINO IR, for Intel processors: the extra `[openvino]`.

The IR is two files, a graph and its weights. They are kept as one artefact, a zip that is not compressed:
`student.xml`, `student.bin` and `metadata.json`.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Final

from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.checks import checked
from ecd_deploy.exporters.contract import ExportInput, StudentBuilder
from ecd_deploy.exporters.files.contents import Contents
from ecd_deploy.exporters.files.metadata import ArtefactMetadata, parse_metadata
from ecd_deploy.exporters.files.zip_archive import METADATA, read_parts
from ecd_deploy.exporters.onnx.format import fp32_source
from ecd_deploy.exporters.openvino.contents import GRAPH, WEIGHTS, read_openvino
from ecd_deploy.exporters.preprocessing import to_pixels
from ecd_deploy.exporters.reason import first_cause
from ecd_deploy.exporters.runtimes import missing_extra, opened_in
from ecd_deploy.files import stored_zip
from ecd_deploy.measure.predictors.prediction import Predictor

# Layers without a name are called after a counter of the process: here after their own number instead.
_COUNTED = re.compile(rb'(<layer id="(\d+)" name=")(?:(\w+)_\d+(?=" type="\3")|Constant_\d+(?=" type="Const"))')


class OpenVinoExporter:
    """Writes the fp32 ONNX student as OpenVINO's converter reads it."""

    format = "openvino"
    filename = "student.openvino.zip"
    runtime: Final = "openvino"
    budget = None
    derived_from = "onnx"

    def export(self, given: ExportInput) -> bytes:
        """Write the student; see `Exporter`."""
        source = fp32_source(given, self.format)
        graph, weights = _converted(source.data)
        text = source.metadata.model_dump_json()
        data = stored_zip({GRAPH: graph, WEIGHTS: weights, METADATA: text.encode()})
        return checked(data, lambda written: _predictor(written, 1), source.metadata, self.format)

    def open(self, data: bytes, build: StudentBuilder, *, threads: int = 1) -> Predictor:  # noqa: ARG002
        """Compile the graph for the CPU; see `Exporter`."""
        return _predictor(data, threads)

    def read_metadata(self, data: bytes) -> ArtefactMetadata:
        """Read the metadata; see `Exporter`."""
        return parse_metadata(read_parts(data, GRAPH, WEIGHTS, self.format).metadata, self.format)

    def contents(self, data: bytes) -> Contents:
        """Read the graph's constants; see `Exporter`."""
        return read_openvino(data)


def _converted(source: bytes) -> tuple[bytes, bytes]:
    try:
        import openvino
    except ImportError as error:
        raise missing_extra("openvino", error) from error
    with tempfile.TemporaryDirectory() as folder:
        graph, weights = Path(folder) / GRAPH, Path(folder) / WEIGHTS
        try:
            openvino.serialize(openvino.Core().read_model(model=source), str(graph), str(weights))
            return _COUNTED.sub(rb"\1unnamed_\2", graph.read_bytes()), weights.read_bytes()
        except Exception as error:
            reraise_machine_fault(error)
            raise ExportError(f"OpenVINO cannot express the student: {first_cause(error)}") from error


def _predictor(data: bytes, threads: int) -> Predictor:
    metadata = parse_metadata(read_parts(data, GRAPH, WEIGHTS, "openvino").metadata, "openvino")
    run = opened_in("openvino", data, threads).run
    return run if metadata.preprocessing == "outside" else lambda images: run(to_pixels(images, metadata))
