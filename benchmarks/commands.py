"""Runs the command as a user does, in a process of its own that was forked from one that has loaded the libraries."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(
    [
        "ecd_deploy.cli",
        "ecd_deploy.cli.text.summary",
        "ecd_deploy.pipelines.run",
        "ecd_deploy.pipelines.gate.model",
        "ecd_deploy.pipelines.rehearse.rehearsal",
        "ecd_deploy.pipelines.verify.verify",
        # What the steps import when they are first called.
        *(f"ecd_deploy.pipelines.steps.{step}" for step in ("train", "split", "export", "validate", "measure")),
        *(f"ecd_deploy.pipelines.report.{module}" for module in ("write", "model", "bom", "card")),
        *(f"ecd_deploy.exporters.{exporter}" for exporter in ("onnx.fp32", "pytorch.torchscript", "audit.audit")),
        # What the libraries import when they are first called.
        *("onnxruntime", "scipy.optimize", "networkx", "torch.utils.tensorboard"),
        *("torch._dynamo", "torch.onnx._internal.exporter._core", "onnxscript.function_libs.torch_lib.ops"),
    ]
)
_SECONDS_BETWEEN_LOOKS = 0.02


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code; negative if a signal killed it.
        out, err: what it wrote.
        seconds: it took; after `stop_when`, from the signal on.
        peak_bytes: of its memory, or that of a process that it started.
    """

    code: int
    out: str
    err: str
    seconds: float = 0.0
    peak_bytes: int = 0


def run_forked(
    arguments: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    path: Sequence[Path] = (),
    timeout: float = 240.0,
    stop_when: Callable[[], bool] | None = None,
) -> Ended:
    """Run the command.

    Args:
        arguments: its words.
        cwd: the folder it is started in.
        environment: of the process, in place of this one's.
        path: folders from which it may import besides.
        timeout: seconds after which it is killed.
        stop_when: asked from when the process has started; as soon as it holds, the command gets SIGTERM.

    Raises:
        subprocess.TimeoutExpired: it was killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder)
        process = _FORKING.Process(target=_command, args=(list(arguments), cwd, environment, path, written))
        started = time.monotonic()
        process.start()
        if stop_when is not None:
            begun = written / "err"
            while process.exitcode is None and time.monotonic() - started < timeout:
                if begun.exists() and stop_when():
                    break
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            started = time.monotonic()
            if process.exitcode is None and process.pid is not None:
                os.kill(process.pid, signal.SIGTERM)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(arguments, timeout)
        out, err = ((written / name).read_text(encoding="utf-8", errors="replace") for name in ("out", "err"))
        peak = written / "peak"
        return Ended(
            process.exitcode,
            out,
            err,
            seconds=time.monotonic() - started,
            peak_bytes=int(peak.read_text()) if peak.exists() else 0,
        )


def _command(
    arguments: list[str], cwd: Path, environment: Mapping[str, str], path: Sequence[Path], written: Path
) -> None:
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(written / name, os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # that of the environment, not that of the process this was forked from
    sys.path[:] = [str(cwd), *map(str, path), *sys.path]
    sys.argv = ["ecd-deploy", *arguments]

    from ecd_deploy.cli import main

    try:
        main(arguments)
    finally:
        kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        (written / "peak").write_text(str(max(resource.getrusage(kind).ru_maxrss for kind in kinds) * 1024))
