"""Runs the command as a user does, in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STUDENTS = Path(__file__).parent / "students"
_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(
    [
        *(
            "ecd_deploy.cli",
            "ecd_deploy.pipelines.run",
            "ecd_deploy.pipelines.verify.verify",
            "ecd_deploy.cli.text.summary",
        ),
        # What torch.export and torch.onnx import when they are first called.
        *("torch._dynamo", "networkx", "torch.onnx._internal.exporter._core", "onnxscript.function_libs.torch_lib.ops"),
    ]
)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def run_command(arguments: Sequence[str | Path], *, cwd: Path, timeout: float = 240, fresh: bool = False) -> Ended:
    """Run the command in a process of its own, from a folder that is not the source tree.

    The factories in `tests/students` can be named as students. Only if `fresh` does the process load the libraries
    itself, which takes seconds; else it is forked from one that has loaded them and done nothing besides.
    """
    words = [str(argument) for argument in arguments]
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(STUDENTS))))
    environment = {**os.environ, "COLUMNS": "200", "PYTHONPATH": path}
    if fresh:
        command = [sys.executable, "-m", "ecd_deploy", *words]
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        return Ended(done.returncode, done.stdout, done.stderr)
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _FORKING.Process(target=_command, args=(words, cwd, environment, out, err))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(words, timeout)
        return Ended(process.exitcode, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))


def _command(arguments: list[str], cwd: Path, environment: Mapping[str, str], out: Path, err: Path) -> None:
    for descriptor, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = [str(cwd), str(STUDENTS), *sys.path]
    sys.argv = ["ecd-deploy", *arguments]

    from ecd_deploy.cli import main

    main(arguments)
