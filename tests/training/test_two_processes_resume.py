from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.helpers import metrics

SCRIPT = "tests.training.two_processes_resume"
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_processes_go_on_with_the_same_bits(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    assert launch(whole) == [0, 0]
    # a signal to one of them stops both, after the same step
    assert launch(broken, 1, 5, signal.SIGTERM) == [143, 143]
    assert newest(broken) == "step-000000003-running"  # two forwards a step
    assert launch(broken, 0, 11, signal.SIGKILL)[0] == -signal.SIGKILL
    assert newest(broken) == "step-000000008-running"
    assert launch(broken) == [0, 0]
    for rank in (0, 1):
        name = f"rank-{rank}.safetensors"
        assert (broken / name).read_bytes() == (whole / name).read_bytes()
    assert metrics(broken) == metrics(whole)


def launch(*arguments: Path | int) -> list[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", SCRIPT, *(str(int(a)) if isinstance(a, int) else str(a) for a in arguments)],
            cwd=ROOT,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.DEVNULL,
        )
        for rank in (0, 1)
    ]
    killed = arguments[1] if len(arguments) > 1 and arguments[-1] == signal.SIGKILL else None
    if isinstance(killed, int):
        processes[killed].wait(timeout=120)
        for process in processes:  # the other one waits for it
            process.kill()
    return [process.wait(timeout=120) for process in processes]


def newest(directory: Path) -> str:
    paths = (path for path in (directory / "checkpoints").iterdir() if path.name.startswith("step"))
    return max(path.name for path in paths)
