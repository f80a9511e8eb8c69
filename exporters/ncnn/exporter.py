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
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.checks import checked
from ecd_deploy.exporters.contents import Contents
from ecd_deploy.exporters.contract import ExportInput, StudentBuilder
from ecd_deploy.exporters.metadata import INPUT_NAME, OUTPUT_NAME, ArtefactMetadata, describe, parse_metadata
from ecd_deploy.exporters.ncnn.contents import read_ncnn
from ecd_deploy.exporters.ncnn.layout import GRAPH, METADATA, WEIGHTS, read_layers, read_parts
from ecd_deploy.exporters.pytorch.torchscript import TorchScriptExporter
from ecd_deploy.files import sha256_bytes, stored_zip
from ecd_deploy.measure.prediction import Predictor

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
        described = describe(given.student, given.metadata)
        if given.source is None or TorchScriptExporter().read_metadata(given.source) != described:
            raise ExportError("ncnn is made from the torchscript artefact of the same export, and none was given")
        described = described.model_copy(update={"batch": 1, "derived_from": sha256_bytes(given.source)})
        parts = _converted(given.source, described.input_shape)
        data = stored_zip({**parts, METADATA: described.model_dump_json().encode()})
        return checked(data, lambda written: _predictor(written, 1), described, self.format)

    def open(self, data: bytes, build: StudentBuilder, *, threads: int = 1) -> Predictor:  # noqa: ARG002
        """Load the model; it is given one image after the other."""
        return _predictor(data, threads)

    def read_metadata(self, data: bytes) -> ArtefactMetadata:
        """Read the metadata; see `Exporter`."""
        return parse_metadata(read_parts(data).metadata, self.format)

    def contents(self, data: bytes) -> Contents:
        """Read what the layers take of the weights; see `Exporter`."""
        return read_ncnn(data)


def _missing(error: ImportError) -> ExportError:
    return ExportError(f"the ncnn format needs the extra: pip install 'ecd-deploy[ncnn]' ({error})")


def _converted(program: bytes, image_shape: tuple[int, int, int]) -> dict[str, bytes]:
    try:
        from pnnx import EXEC_PATH
    except ImportError as error:
        raise _missing(error) from error
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
        return {GRAPH: text, WEIGHTS: weights.read_bytes()}


def _predictor(data: bytes, threads: int) -> Predictor:
    try:
        import ncnn
    except ImportError as error:
        raise _missing(error) from error
    parts = read_parts(data)
    # What pnnx cannot translate it leaves in the graph under PyTorch's name.
    unknown = sorted({layer.kind for layer in read_layers(parts.graph) if ncnn.layer_to_index(layer.kind) < 0})
    if unknown:
        raise ExportError(f"ncnn cannot express the student: it lacks {', '.join(unknown)}")
    net: Any = ncnn.Net()
    net.opt.num_threads = threads
    # On processors with float16 ncnn computes in it by default, which is not what was exported.
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = net.opt.use_bf16_packed = False
    try:
        with tempfile.TemporaryDirectory() as folder:
            graph, weights = Path(folder, GRAPH), Path(folder, WEIGHTS)
            graph.write_bytes(parts.graph)
            weights.write_bytes(parts.weights)
            if net.load_param(str(graph)) or net.load_model(str(weights)):
                raise ExportError("ncnn cannot open the artefact")
    except Exception as error:
        reraise_machine_fault(error)
        raise ExportError(f"ncnn cannot open the artefact: {error}") from error

    def predict(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.stack([_logits(net, image) for image in images])

    return predict


def _logits(net: Any, image: NDArray[np.float32]) -> NDArray[np.float32]:
    import ncnn

    extractor = net.create_extractor()
    extractor.input(INPUT_NAME, ncnn.Mat(np.ascontiguousarray(image)).clone())
    failed, logits = extractor.extract(OUTPUT_NAME)
    if failed:
        raise ExportError("ncnn cannot run the artefact")
    return np.array(logits, dtype=np.float32)
