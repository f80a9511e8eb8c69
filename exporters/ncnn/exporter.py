"""ncnn, for phones and boards with ARM processors: the extra `[ncnn]`.

A model of ncnn is two files, a graph and its weights. They are kept as one artefact, a zip that is not compressed:
`student.ncnn.param`, `student.ncnn.bin` (float32) and `metadata.json`. What pnnx, ncnn's converter, calls `in0` and
`out0` has the names that the metadata give.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.checks import checked
from ecd_deploy.exporters.contract import ExportInput, StudentBuilder
from ecd_deploy.exporters.files.contents import Contents
from ecd_deploy.exporters.files.metadata import INPUT_NAME, OUTPUT_NAME, ArtefactMetadata, parse_metadata
from ecd_deploy.exporters.files.zip_archive import METADATA, read_parts
from ecd_deploy.exporters.ncnn.contents import read_ncnn
from ecd_deploy.exporters.ncnn.layout import GRAPH, WEIGHTS, read_layers
from ecd_deploy.exporters.pytorch.torchscript import TorchScriptExporter
from ecd_deploy.exporters.runtimes import missing_extra, one_by_one, opened_in
from ecd_deploy.exporters.source_file import source_file
from ecd_deploy.files import stored_zip
from ecd_deploy.measure.predictors.prediction import Predictor

_INPUT, _OUTPUT = re.compile(rb"(?<= )in0(?=[ \n])"), re.compile(rb"(?<= )out0(?=[ \n])")


class NcnnExporter:
    """Writes the TorchScript student as pnnx converts it, for one image at a time: ncnn has no batches."""

    format = "ncnn"
    filename = "student.ncnn.zip"
    runtime: Final = "ncnn"
    budget = None
    derived_from = "torchscript"

    def export(self, given: ExportInput) -> bytes:
        """Write the student; see `Exporter`."""
        source = source_file(given, self.format, self.derived_from, TorchScriptExporter().read_metadata)
        described = source.metadata.model_copy(update={"batch": 1})
        parts = _converted(source.data, described.input_shape)
        data = stored_zip({**parts, METADATA: described.model_dump_json().encode()})
        return checked(data, lambda written: one_by_one(opened_in("ncnn", written, 1)), described, self.format)

    def open(self, data: bytes, build: StudentBuilder, *, threads: int = 1) -> Predictor:  # noqa: ARG002
        """Load the model; it is given one image after the other."""
        return one_by_one(opened_in("ncnn", data, threads))

    def read_metadata(self, data: bytes) -> ArtefactMetadata:
        """Read the metadata; see `Exporter`."""
        return parse_metadata(read_parts(data, GRAPH, WEIGHTS, self.format).metadata, self.format)

    def contents(self, data: bytes) -> Contents:
        """Read what the layers take of the weights; see `Exporter`."""
        return read_ncnn(data)


def _converted(program: bytes, image_shape: tuple[int, int, int]) -> dict[str, bytes]:
    try:
        import ncnn
        from pnnx import EXEC_PATH
    except ImportError as error:
        raise missing_extra("ncnn", error) from error
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "student.pt").write_bytes(program)
        shape = f"inputshape=[1,{','.join(map(str, image_shape))}]f32"
        command = [EXEC_PATH, "student.pt", shape, "fp16=0", f"ncnnparam={GRAPH}", f"ncnnbin={WEIGHTS}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
        graph, weights = Path(folder, GRAPH), Path(folder, WEIGHTS)
        if done.returncode or not graph.exists() or not weights.exists():
            last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise ExportError(f"pnnx cannot convert the student, it ends with exit code {done.returncode}: {last}")
        text = _OUTPUT.sub(OUTPUT_NAME.encode(), _INPUT.sub(INPUT_NAME.encode(), graph.read_bytes()))
        # What pnnx cannot translate it leaves in the graph under PyTorch's name.
        unknown = sorted({layer.kind for layer in read_layers(text) if ncnn.layer_to_index(layer.kind) < 0})
        if unknown:
            raise ExportError(f"ncnn cannot express the student: it lacks {', '.join(unknown)}")
        return {GRAPH: text, WEIGHTS: weights.read_bytes()}
