"""Real commands of the program, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ecd_deploy.records import Record

ROOT = Path(__file__).parents[2]
"""Of the repository: the package need not be installed."""

_TAIL = 2000  # characters of what a command wrote that are kept when it fails
_POLL_SECONDS = 0.002


@dataclass(frozen=True)
class Program:
    """How a command is started.

    Attributes:
        modules: what stands between the interpreter and the program's own arguments.
    """

    modules: tuple[str, ...]


DIRECT = Program(("-m", "ecd_deploy"))
DETERMINISTIC = Program(("-m", "benchmarks.gpu.deterministic"))


def launched(mixed_precision: str, *, cpu: bool) -> Program:
    """The program by `accelerate launch`, one process."""
    # by its module: the command itself need not be on the path
    words = ["-m", "accelerate.commands.launch", "--mixed_precision", mixed_precision, "--num_processes", "1"]
    words += ["--num_machines", "1", "--dynamo_backend", "no", *(("--cpu",) if cpu else ())]
    return Program((*words, "-m", "ecd_deploy"))


class Ended(Record):
    """How a command ended.

    Attributes:
        command: its words, after the interpreter.
        code: its exit code; negative if a signal ended it, None if it was ended because its time was up.
        seconds: that it took.
        tail: the end of what it wrote, if it failed.
    """

    command: tuple[str, ...]
    code: int | None
    seconds: float
    tail: str


def describe_checkout(folder: Path) -> None:
    """Let commands that run in a folder find the package's version: a checkout that is not installed says none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    described = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    described.mkdir()
    lines = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (described / "METADATA").write_text(lines, encoding="utf-8")


def run_command(
    program: Program,
    arguments: Sequence[str],
    folder: Path,
    until: float,
    *,
    kill_when: Callable[[], bool] | None = None,
) -> Ended:
    """Run a command in a folder until it ends.

    Args:
        program: what is run.
        arguments: of it.
        folder: where.
        until: reading of `time.monotonic` at which it gets SIGKILL.
        kill_when: condition on which it gets SIGKILL before.
    """
    words = (*program.modules, *arguments)
    given = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    path = os.pathsep.join(str(Path(entry).resolve()) for entry in (str(ROOT), *given, str(folder)))
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
    log = folder / f"{time.monotonic_ns()}.log"
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            (sys.executable, *words),
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,  # a launcher's children end with it
        )
        timed_out = False
        try:
            while process.poll() is None:
                timed_out = time.monotonic() > until
                if timed_out or (kill_when is not None and kill_when()):
                    break
                time.sleep(_POLL_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
    written = log.read_text(encoding="utf-8", errors="replace")
    return Ended(
        command=words,
        code=None if timed_out else code,
        seconds=round(time.monotonic() - started, 1),
        tail="" if code == 0 else written[-_TAIL:],
    )
