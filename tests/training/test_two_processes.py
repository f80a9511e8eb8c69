from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

SCRIPT = Path(__file__).with_name("two_processes.py")


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    # launch's own --cpu starts one process whatever the number; the variable keeps the two off any GPU
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--num_cpu_threads_per_process", "1", "--main_process_port", "0"]
    done = subprocess.run(
        [*launch, str(SCRIPT), str(tmp_path / "two")],
        cwd=tmp_path,
        env={**os.environ, "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "broadcast_buffers" not in done.stderr
    runpy.run_path(str(SCRIPT))["main"](tmp_path / "one")

    first, second, alone = (
        safetensors.torch.load_file(tmp_path / folder / f"rank-{rank}.safetensors")
        for folder, rank in (("two", "0"), ("two", "1"), ("one", "alone"))
    )
    assert first.keys() == second.keys() == alone.keys()
    for name, expected in alone.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], expected, rtol=1e-4, atol=1e-5)
    for found, expected_line in zip(lines(tmp_path / "two"), lines(tmp_path / "one"), strict=True):
        assert found["loss"] == pytest.approx(expected_line["loss"], rel=1e-4)
        assert found["validation_top1"] == pytest.approx(expected_line["validation_top1"], abs=0.04)
    state = next((tmp_path / "two" / "checkpoints").glob("step-*/state.json"))
    assert json.loads(state.read_text())["training"]["processes"] == 2


def lines(directory: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
