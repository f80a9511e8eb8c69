""".ort: onnxruntime's own format, optimised ahead for one kind of processor, so that it loads faster."""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path
from typing import Final, Literal

import onnxruntime as ort

from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.batches import check_batches
from ecd_deploy.exporters.context import ExportContext
from ecd_deploy.exporters.contract import StudentBuilder
from ecd_deploy.exporters.metadata import ArtefactMetadata, describe
from ecd_deploy.exporters.onnx_file import OnnxExporter, finish, parse_model
from ecd_deploy.exporters.onnx_session import open_session, session_metadata, session_options, session_predictor
from ecd_deploy.exporters.ort_canonical import canonical
from ecd_deploy.exporters.paths import refuse_local_paths
from ecd_deploy.files import sha256_bytes
from ecd_deploy.measure.prediction import Predictor
from ecd_deploy.split import SplitStudent

_IDENTIFIER = slice(4, 8)


class OrtExporter:
    """Writes the graph as onnxruntime optimises it on this machine, the blocked (NCHWc) layout included.

    What the graph became depends on the processor's vector width, and on onnxruntime's version: the file is for
    processors like the one that wrote it.

    Args:
        opset: of the standard operators.
        preprocessing: whether the graph itself normalises uint8 pixels.
    """

    format = "ort"
    filename = "student.ort"
    runtime: Final = "onnxruntime"
    budget = None

    def __init__(self, opset: int = 20, preprocessing: Literal["outside", "inside"] = "outside") -> None:
        self._source = OnnxExporter(opset, preprocessing)

    def export(
        self,
        student: SplitStudent,
        metadata: ArtefactMetadata,
        context: ExportContext | None = None,
    ) -> bytes:
        """Write the student; see `Exporter`."""
        describe(student, metadata)
        source = self._source.export(student, metadata, context)
        described = self._source.read_metadata(source).model_copy(
            update={
                "derived_from": sha256_bytes(source),
                "target": f"{platform.machine()}, onnxruntime {ort.__version__}",
            }
        )
        data = canonical(_optimised(finish(parse_model(source, self.format), described, self.format)))
        refuse_local_paths(data, self.format)
        check_batches(self._opened(data, 1), student.example_shape, len(described.classes), self.format)
        return data

    def open(self, data: bytes, build: StudentBuilder, *, threads: int = 1) -> Predictor:  # noqa: ARG002
        """Start onnxruntime on the CPU; see `Exporter`."""
        return self._opened(data, threads)

    def read_metadata(self, data: bytes) -> ArtefactMetadata:
        """Read the metadata; see `Exporter`."""
        return session_metadata(self._session(data, 1), self.format)

    def _session(self, data: bytes, threads: int) -> ort.InferenceSession:
        if data[_IDENTIFIER] != b"ORTM":
            raise ExportError("not an ort artefact: its identifier is missing")
        return open_session(data, threads, self.format)

    def _opened(self, data: bytes, threads: int) -> Predictor:
        session = self._session(data, threads)
        return session_predictor(session, session_metadata(session, self.format))


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
