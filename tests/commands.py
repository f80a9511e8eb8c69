"""Runs the command as a user does, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.commands import Ended as Ended
from benchmarks.commands import run_forked

STUDENTS = Path(__file__).parent / "students"


def run_command(arguments: Sequence[str | Path], *, cwd: Path, timeout: float = 240, fresh: bool = False) -> Ended:
    """Run the command in a process of its own, from a folder that is not the source tree.

    The factories in `tests/students` can be named as students. Only if `fresh` does the process load the libraries
    itself, which takes seconds; else it is forked from one that has loaded them and done nothing besides.
    """
    words = [str(argument) for argument in arguments]
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(STUDENTS))))
    environment = {**os.environ, "COLUMNS": "200", "PYTHONPATH": path}
    if not fresh:
        return run_forked(words, cwd=cwd, environment=environment, path=(STUDENTS,), timeout=timeout)
    command = [sys.executable, "-m", "ecd_deploy", *words]
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr)
