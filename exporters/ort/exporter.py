""".ort: onnxruntime's own format, optimised ahead for one kind of processor, so that it loads faster."""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path
from typing import Final

import onnxruntime as ort

from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.checks import checked
from ecd_deploy.exporters.contract import ExportInput, StudentBuilder
from ecd_deploy.exporters.files.contents import Contents
from ecd_deploy.exporters.files.metadata import METADATA_KEY, ArtefactMetadata, parse_metadata
from ecd_deploy.exporters.onnx.format import finish, fp32_source, parse_model
from ecd_deploy.exporters.onnx.session import open_session, session_options, session_predictor
from ecd_deploy.exporters.ort.canonical import canonical
from ecd_deploy.exporters.ort.contents import read_ort
from ecd_deploy.measure.predictors.prediction import Predictor
from ecd_deploy.measure.predictors.untrusted import is_ort


class OrtExporter:
    """Writes the graph as onnxruntime optimises it on this machine, the blocked (NCHWc) layout included.

    What the graph became depends on the processor's vector width, and on onnxruntime's version: the file is for
    processors like the one that wrote it.
    """

    format = "ort"
    filename = "student.ort"
    runtime: Final = "onnxruntime"
    budget = None
    derived_from = "onnx"

    def export(self, given: ExportInput) -> bytes:
        """Write the student; see `Exporter`."""
        source = fp32_source(given, self.format)
        target = f"{platform.machine()}, onnxruntime {ort.__version__}"
        described = source.metadata.model_copy(update={"target": target})
        data = canonical(_optimised(finish(parse_model(source.data, self.format), described, self.format)))
        return checked(data, lambda written: self._opened(written, 1), described, self.format)

    def open(self, data: bytes, build: StudentBuilder, *, threads: int = 1) -> Predictor:  # noqa: ARG002
        """Start onnxruntime on the CPU; see `Exporter`."""
        return self._opened(data, threads)

    def read_metadata(self, data: bytes) -> ArtefactMetadata:
        """Read the metadata; see `Exporter`."""
        return self._metadata(self._session(data, 1))

    def contents(self, data: bytes) -> Contents:
        """Read the flatbuffer; see `Exporter`."""
        return read_ort(data)

    def _session(self, data: bytes, threads: int) -> ort.InferenceSession:
        if not is_ort(data):
            raise ExportError("not an ort artefact: its identifier is missing")
        return open_session(data, threads, self.format)

    def _metadata(self, session: ort.InferenceSession) -> ArtefactMetadata:
        return parse_metadata(session.get_modelmeta().custom_metadata_map.get(METADATA_KEY), self.format)

    def _opened(self, data: bytes, threads: int) -> Predictor:
        session = self._session(data, threads)
        return session_predictor(session, self._metadata(session))


def _optimised(data: bytes) -> bytes:
    options = session_options(1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.save_model_format", "ORT")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "student.ort"
        options.optimized_model_filepath = str(path)
        try:
            ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            return path.read_bytes()
        except Exception as error:
            reraise_machine_fault(error)
            raise ExportError(f"onnxruntime cannot write the student in its own format: {error}") from error
