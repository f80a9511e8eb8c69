from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.commands import Ended, run_command

# Tests share their machine with others, where two threads that wait for each other take many times as long as one.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A short run on digits by the real command: its directory, not to be changed, and how it ended."""
    folder = tmp_path_factory.mktemp("finished")
    arguments = ["run", "digits", "--out", "run", "--set", "train.epochs=4", "--set", "profile.min_seconds=0.5"]
    # A test machine may be slow and shared: latency is measured here, but not limited.
    arguments += ["--set", "gate.p90_ms_max=1000.0", "--set", "gate.min_top1=0.8"]
    ended = run_command(arguments, cwd=folder, fresh=True)
    return folder / "run", ended
