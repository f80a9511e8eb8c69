"""OpenVINO IR, for Intel processors: the extra `[openvino]`.

The IR is two files, a graph and its weights. They are kept as one artefact, a zip that is not compressed:
`student.xml`, `student.bin` and `metadata.json`.
"""

from __future__ import annotations

import io
import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.batches import check_batches
from ecd_deploy.exporters.context import ExportContext
from ecd_deploy.exporters.contract import StudentBuilder
from ecd_deploy.exporters.metadata import INPUT_NAME, ArtefactMetadata, parse_metadata
from ecd_deploy.exporters.onnx_file import OnnxExporter
from ecd_deploy.exporters.openvino_layout import GRAPH, METADATA, WEIGHTS
from ecd_deploy.exporters.paths import refuse_local_paths
from ecd_deploy.exporters.preprocessing import to_pixels
from ecd_deploy.files import sha256_bytes
from ecd_deploy.measure.prediction import Predictor
from ecd_deploy.split import SplitStudent

_EPOCH = (1980, 1, 1, 0, 0, 0)

# Layers without a name are called after a counter of the process: here after their own number instead.
_COUNTED = re.compile(rb'(<layer id="(\d+)" name=")(?:(\w+)_\d+(?=" type="\3")|Constant_\d+(?=" type="Const"))')


class OpenVinoExporter:
    """Writes the fp32 ONNX student as OpenVINO's converter reads it.

    Args:
        opset: of the ONNX file that it is made from.
        preprocessing: whether the graph itself normalises uint8 pixels.
    """

    format = "openvino"
    filename = "student.openvino.zip"
    runtime: Final = "other"
    budget = None

    def __init__(self, opset: int = 20, preprocessing: Literal["outside", "inside"] = "outside") -> None:
        self._source = OnnxExporter(opset, preprocessing)

    def export(self, student: SplitStudent, metadata: ArtefactMetadata, context: ExportContext | None = None) -> bytes:
        """Write the student; see `Exporter`."""
        source = self._source.export(student, metadata, context)
        described = self._source.read_metadata(source).model_copy(update={"derived_from": sha256_bytes(source)})
        graph, weights = _converted(source)
        data = _zipped({GRAPH: graph, WEIGHTS: weights, METADATA: described.model_dump_json().encode()})
        refuse_local_paths(data, self.format)
        check_batches(_predictor(data, 1), student.example_shape, len(described.classes), self.format)
        return data

    def open(self, data: bytes, build: StudentBuilder, *, threads: int = 1) -> Predictor:  # noqa: ARG002
        """Compile the graph for the CPU; see `Exporter`."""
        return _predictor(data, threads)

    def read_metadata(self, data: bytes) -> ArtefactMetadata:
        """Read the metadata; see `Exporter`."""
        return parse_metadata(_part(data, METADATA).decode(errors="replace"), self.format)


def _library() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise ExportError(
            f"the openvino format needs the extra: pip install 'ecd-deploy[openvino]' ({error})"
        ) from error
    return openvino


def _converted(source: bytes) -> tuple[bytes, bytes]:
    openvino = _library()
    with tempfile.TemporaryDirectory() as folder:
        graph, weights = Path(folder) / GRAPH, Path(folder) / WEIGHTS
        try:
            openvino.serialize(openvino.Core().read_model(model=source), str(graph), str(weights))
            return _COUNTED.sub(rb"\1unnamed_\2", graph.read_bytes()), weights.read_bytes()
        except Exception as error:
            reraise_machine_fault(error)
            raise ExportError(f"OpenVINO cannot express the student: {error}") from error


def _zipped(parts: dict[str, bytes]) -> bytes:
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return result.getvalue()


def _part(data: bytes, name: str) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.read(name)
    except (zipfile.BadZipFile, KeyError, EOFError, OSError) as error:
        raise ExportError(f"not an openvino artefact: {error}") from error


def _predictor(data: bytes, threads: int) -> Predictor:
    metadata = parse_metadata(_part(data, METADATA).decode(errors="replace"), "openvino")
    openvino = _library()
    core = openvino.Core()
    try:
        model = core.read_model(model=_part(data, GRAPH), weights=_part(data, WEIGHTS))
        # The default on some processors is bfloat16, which is not what was exported.
        precise = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(model, "CPU", precise)
    except Exception as error:
        reraise_machine_fault(error)
        raise ExportError(f"OpenVINO cannot open the artefact: {error}") from error

    def predict(images: NDArray[np.float32]) -> NDArray[np.float32]:
        given = to_pixels(images, metadata) if metadata.preprocessing == "inside" else images
        logits: NDArray[np.float32] = compiled({INPUT_NAME: given})[compiled.output(0)]
        return logits.copy()

    return predict
