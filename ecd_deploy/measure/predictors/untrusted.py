"""Files that this run did not write: only ONNX, .ort and safetensors, and tried first where they can do no harm."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.resources import as_file, files

import safetensors

from ecd_deploy.errors import ArtefactError

_RUNNER = "untrusted_runner.py"
_ONNX = (b"\x08",)  # the first field of a model, its IR version


@dataclass(frozen=True)
class Limits:
    """Of the child process.

    Attributes:
        seconds: wall-clock time, imports included, and CPU time.
        memory_bytes: of data, the heap and private mappings; code is not counted.
    """

    seconds: int = 60
    memory_bytes: int = 4_000_000_000

    def command(self, *, extra_seconds: float = 0.0) -> list[str]:
        """What stands before a command to set these limits on each process of it, without that of wall-clock time."""
        seconds = math.ceil(self.seconds + extra_seconds)
        limits = f"ulimit -d {self.memory_bytes // 1024} && ulimit -t {seconds} && ulimit -c 0"
        return ["sh", "-c", f'{limits} && exec "$@"', "sh"]


def check_untrusted(data: bytes, name: str, limits: Limits = Limits(), *, batch_size: int = 1) -> None:
    """Try an untrusted file: what passes can be opened and run within the limits, and keeps nothing outside.

    An ONNX or .ort model is opened and run on dark, light, noisy and picture-like images in a child process, which is
    ended when it takes too long. A safetensors file is parsed here: its parser runs no code and allocates nothing that
    the header asks for. Archives of torch, pickles and anything else are refused unopened, because loading them can
    run code.

    Args:
        data: of the file.
        name: for the error.
        limits: of the child process.
        batch_size: that a model is also tried with, on one image.

    Raises:
        ArtefactError: the file is of another kind, keeps data outside, crashes, hangs, or takes too much memory.
    """
    if data[8:9] == b"{":
        try:
            safetensors.deserialize(data)  # type: ignore[no-untyped-call]
        except safetensors.SafetensorError as error:
            raise ArtefactError(f"{name} is not a safetensors file: {error}") from error
        return
    if not (data.startswith(_ONNX) or is_ort(data)):
        raise ArtefactError(
            f"{name} was not written by this run: such files are opened only if ONNX, .ort or safetensors"
        )
    problem = _tried(data, limits, batch_size)
    if problem is not None:
        raise ArtefactError(f"{name} cannot be used: it {problem}")


def is_ort(data: bytes) -> bool:
    """Whether a file has onnxruntime's own format, .ort."""
    return data[4:8] == b"ORTM"


def _tried(data: bytes, limits: Limits, batch_size: int) -> str | None:
    with as_file(files("ecd_deploy.measure.predictors") / _RUNNER) as script, tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-I", str(script), *map(str, (limits.memory_bytes, limits.seconds, batch_size))]
        try:
            done = subprocess.run(
                command, input=data, cwd=folder, capture_output=True, timeout=limits.seconds, check=False
            )
        except subprocess.TimeoutExpired:
            return f"does not finish within {limits.seconds} s"
    try:
        problem = json.loads(done.stdout.splitlines()[-1])["problem"]  # onnxruntime may print before
    except (IndexError, ValueError, KeyError, TypeError):
        return f"makes its process exit with {done.returncode}"
    return None if problem is None else str(problem)
