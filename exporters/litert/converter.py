"""LiteRT's converter and quantiser, which live in an environment of their own, and the metadata of what they write.

They want other versions of what this package stands on: `ECD_DEPLOY_LITERT_PYTHON` names that environment's Python. It
is handed files and runs `convert.py` and `quantise.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.files.metadata import INPUT_NAME, METADATA_KEY, OUTPUT_NAME, ArtefactMetadata
from ecd_deploy.exporters.litert.layout import read_layout
from ecd_deploy.exporters.runtimes import missing_extra

CONVERTER_PYTHON: Final = "ECD_DEPLOY_LITERT_PYTHON"
_HERE = Path(__file__).parent
_ERRORS = "errors.txt"


def convert(program: bytes, image_shape: tuple[int, int, int]) -> bytes:
    """Make a float32 model, for one image at a time, of a program of `torch.export`.

    Raises:
        ExportError: there is no converter, or it cannot express the program.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder, "student.pt2"), Path(folder, "student.tflite")
        given.write_bytes(program)
        with _started("convert.py", given, result, ",".join(map(str, (1, *image_shape)))) as running:
            running.communicate()
        if running.returncode or not result.exists():
            raise ExportError(f"litert-torch cannot convert the student: {_last_error(folder)}")
        return result.read_bytes()


@dataclass(frozen=True)
class LiteRtQuantiser:
    """A calibrated model; made by `calibrated`."""

    nodes: tuple[str, ...]
    """Its operators, INDEX/KIND, in the order of the graph."""
    _source: bytes
    _result: Path
    _running: subprocess.Popen[str]

    def quantise(self, nodes: Sequence[str]) -> bytes:
        """Quantise these operators, as far as LiteRT can, and leave all others in float; images and logits are float32.

        Raises:
            ExportError: the quantiser cannot.
        """
        if not nodes:
            return self._source
        _ask(self._running, self._result.parent, json.dumps(list(nodes)))
        return self._result.read_bytes()


@contextmanager
def calibrated(model: bytes, images: NDArray[np.float32], *, per_channel: bool) -> Iterator[LiteRtQuantiser]:
    """Calibrate a model on images (N, C, H, W); the quantiser works as long as the context is open.

    Raises:
        ExportError: there is no quantiser, or it cannot calibrate the model.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, shown, result = (Path(folder, name) for name in ("student.tflite", "images.npy", "quantised.tflite"))
        given.write_bytes(model)
        np.save(shown, images)
        by = "channel" if per_channel else "tensor"
        with _started("quantise.py", given, shown, result, by) as running:
            nodes = json.loads(_ask(running, Path(folder)))
            yield LiteRtQuantiser(tuple(nodes), model, result, running)


def stamp(model: bytes, metadata: ArtefactMetadata) -> bytes:
    """Name what goes in and what comes out, and write the metadata beside the graph, in place of others.

    Raises:
        ExportError: the extra is not there, or the model has several inputs or outputs.
    """
    read_layout(model)
    try:
        from ai_edge_litert import schema_py_generated as schema
        from ai_edge_litert.tools import flatbuffer_utils
    except ImportError as error:
        raise missing_extra("litert", error) from error
    parsed = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    (graph,) = parsed.subgraphs
    for name, indices in ((INPUT_NAME, graph.inputs), (OUTPUT_NAME, graph.outputs)):
        if len(indices) != 1:
            raise ExportError(f"the model of LiteRT has {len(indices)} {name}")
        graph.tensors[indices[0]].name = name
    for signature in parsed.signatureDefs:
        signature.inputs[0].name, signature.outputs[0].name = INPUT_NAME, OUTPUT_NAME
    text = list(metadata.model_dump_json().encode())
    own = [entry for entry in parsed.metadata or [] if entry.name in (METADATA_KEY, METADATA_KEY.encode())]
    if own:
        parsed.buffers[own[0].buffer].data = text
    else:
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = text
        parsed.buffers.append(buffer)
        entry.name, entry.buffer = METADATA_KEY, len(parsed.buffers) - 1
        parsed.metadata = [*(parsed.metadata or []), entry]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(parsed))


@contextmanager
def _started(script: str, given: Path, *arguments: Path | str) -> Iterator[subprocess.Popen[str]]:
    """Run a script in the folder of what it is given, until the context is left."""
    python = os.environ.get(CONVERTER_PYTHON)
    if not python:
        raise ExportError(
            f"the LiteRT formats need a Python that has litert-torch, and {CONVERTER_PYTHON} names none: make one with "
            "python -m venv FOLDER && FOLDER/bin/pip install litert-torch==0.10.0, and set it to FOLDER/bin/python"
        )
    command = [python, "-I", str(_HERE / script), str(given), *map(str, arguments)]
    pipe = subprocess.PIPE
    with (given.parent / _ERRORS).open("w") as errors:
        try:
            running = subprocess.Popen(
                command, cwd=given.parent, stdin=pipe, stdout=pipe, stderr=errors, text=True, errors="replace"
            )
        except OSError as error:
            raise ExportError(f"{CONVERTER_PYTHON} names no Python, {python}: {error}") from error
    with running:
        try:
            yield running
        finally:
            running.kill()


def _ask(running: subprocess.Popen[str], folder: Path, line: str = "") -> str:
    """Hand the script a line, if there is one, and wait for a line of its own."""
    assert running.stdin is not None and running.stdout is not None  # noqa: S101, PT018 - both are pipes
    try:
        if line:
            print(line, file=running.stdin, flush=True)
        reply = running.stdout.readline()
    except BrokenPipeError:
        reply = ""
    if not reply:
        raise ExportError(f"ai-edge-quantizer cannot quantise the student: {_last_error(folder)}")
    return reply


def _last_error(folder: str | Path) -> str:
    lines = Path(folder, _ERRORS).read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it says nothing"
