from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

# Tests share their machine with others, where two threads that wait for each other take many times as long as one.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


STUDENTS = Path(__file__).parent / "students"


def run_command(arguments: Sequence[str | Path], *, cwd: Path, timeout: float = 240) -> Ended:
    """Run the real command in a process of its own, from a folder that is not the source tree.

    The factories in `tests/students` can be named as students.
    """
    command = [sys.executable, "-m", "ecd_deploy", *map(str, arguments)]
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(STUDENTS))))
    environment = {**os.environ, "COLUMNS": "200", "PYTHONPATH": path}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A short run on digits by the real command: its directory, not to be changed, and how it ended."""
    folder = tmp_path_factory.mktemp("finished")
    arguments = ["run", "digits", "--out", "run", "--set", "train.epochs=4", "--set", "profile.min_seconds=0.5"]
    # A test machine may be slow and shared: latency is measured here, but not limited.
    arguments += ["--set", "gate.p90_ms_max=1000.0", "--set", "gate.min_top1=0.8"]
    ended = run_command(arguments, cwd=folder)
    return folder / "run", ended
