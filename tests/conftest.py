from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.commands import Ended, run_command

# Tests share their machine with others, where two threads that wait for each other take many times as long as one.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip where a package of an extra is absent: one that a mark `needs` names, or timm for a student of its."""
    needed = {package for mark in item.iter_markers("needs") for package in mark.args}
    if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        values = item.callspec.params.values()
        needed |= {"timm" for value in values if isinstance(value, str) and value.startswith("timm:")}
    absent = sorted(package for package in needed if find_spec(package) is None)
    if absent:
        pytest.skip(f"needs {', '.join(absent)}, which is not installed")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> tuple[Path, Ended]:
    """A short run on digits by the real command: its directory, not to be changed, and how it ended.

    Tests that run side by side have one in common.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "finished"
    folder.mkdir(exist_ok=True)
    ending = folder / "ended.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ending.exists():
            ending.write_text(json.dumps(asdict(_finish(folder))))
    return folder / "run", Ended(**json.loads(ending.read_text()))


def _finish(folder: Path) -> Ended:
    changes = (
        "train.epochs=4",
        *("profile.min_seconds=0.1", "profile.max_seconds=1.0", "profile.warmup_seconds=0.0"),
        # A test machine may be slow and shared: latency is measured here, but not limited.
        *("gate.p90_ms_max=1000.0", "gate.min_top1=0.8"),
    )
    settings = [word for change in changes for word in ("--set", change)]
    return run_command(["run", "digits", "--out", "run", *settings], cwd=folder, fresh=True)
