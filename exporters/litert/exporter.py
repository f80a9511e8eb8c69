"""LiteRT's `.tflite`, for phones and boards: the extra `[litert]`, which brings the interpreter.

The converter, litert-torch, wants other versions of what this package stands on, and so lives in an environment of its
own: `ECD_DEPLOY_LITERT_PYTHON` names that environment's Python. It is handed the program of `torch.export` in a file.
"""

from __future__ import annotations

import os
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
from ecd_deploy.exporters.litert.contents import read_tflite
from ecd_deploy.exporters.litert.layout import read_layout
from ecd_deploy.exporters.metadata import METADATA_KEY, ArtefactMetadata, describe, parse_metadata
from ecd_deploy.exporters.pytorch.pt2 import Pt2Exporter
from ecd_deploy.files import sha256_bytes
from ecd_deploy.measure.prediction import Predictor

CONVERTER_PYTHON: Final = "ECD_DEPLOY_LITERT_PYTHON"
_SCRIPT = Path(__file__).with_name("convert.py")


class LiteRtExporter:
    """Writes the pt2 student as litert-torch converts it, for one image at a time."""

    format = "litert"
    filename = "student.tflite"
    runtime: Final = "other"
    budget = None
    derived_from = "pt2"

    def export(self, given: ExportInput) -> bytes:
        """Write the student; see `Exporter`."""
        described = describe(given.student, given.metadata)
        if given.source is None or Pt2Exporter().read_metadata(given.source) != described:
            raise ExportError("litert is made from the pt2 artefact of the same export, and none was given")
        described = described.model_copy(update={"batch": 1, "derived_from": sha256_bytes(given.source)})
        data = _converted(given.source, described)
        return checked(data, lambda written: _predictor(written, 1), described, self.format)

    def open(self, data: bytes, build: StudentBuilder, *, threads: int = 1) -> Predictor:  # noqa: ARG002
        """Load the model; it is given one image after the other."""
        return _predictor(data, threads)

    def read_metadata(self, data: bytes) -> ArtefactMetadata:
        """Read the metadata, without LiteRT; see `Exporter`."""
        texts = [text.content for text in read_layout(data).texts if text.name == METADATA_KEY]
        return parse_metadata(texts[0].decode(errors="replace") if texts else None, self.format)

    def contents(self, data: bytes) -> Contents:
        """Read the buffers; see `Exporter`."""
        return read_tflite(data)


def _converted(program: bytes, metadata: ArtefactMetadata) -> bytes:
    python = os.environ.get(CONVERTER_PYTHON)
    if not python:
        raise ExportError(
            f"the litert format needs a Python that has litert-torch, and {CONVERTER_PYTHON} names none: make one with "
            "python -m venv FOLDER && FOLDER/bin/pip install litert-torch==0.10.0, and set it to FOLDER/bin/python"
        )
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder, "student.pt2"), Path(folder, "student.tflite")
        given.write_bytes(program)
        shape = ",".join(map(str, (1, *metadata.input_shape)))
        command = [python, "-I", str(_SCRIPT), given.name, result.name, shape, METADATA_KEY, metadata.model_dump_json()]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
        except OSError as error:
            raise ExportError(f"{CONVERTER_PYTHON} names no Python, {python}: {error}") from error
        if done.returncode or not result.exists():
            last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise ExportError(f"litert-torch cannot convert the student: {last}")
        return result.read_bytes()


def _predictor(data: bytes, threads: int) -> Predictor:
    read_layout(data)
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ExportError(f"the litert format needs the extra: pip install 'ecd-deploy[litert]' ({error})") from error
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
