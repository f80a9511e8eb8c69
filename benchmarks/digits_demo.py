"""The README's demo: `ecd-deploy run digits` as a user runs it, in a process and a folder of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Report

SEEDS = (0, 1, 2)
"""0 is the recipe's own; the others show how much of the result is chance."""


def measure() -> Report:
    """Run the recipe once a seed; the first run is the README's."""
    runs = [_run(seed) for seed in SEEDS]
    accuracies = [run["test_top1"] for run in runs]
    return Report(
        benchmark="digits_demo",
        figures=(
            Figure(
                name="digits: test top-1 of the ONNX student (range over three seeds)",
                value=accuracies[0],
                lower=min(accuracies),
                upper=max(accuracies),
                better="higher",
                must=0.97,
                unit="",
            ),
            Figure(
                name="digits: seconds of the whole command", value=runs[0]["seconds"], better="lower", must=35, unit="s"
            ),
        ),
        setting={"command": "ecd-deploy run digits --set seed=SEED", "seeds": SEEDS},
        raw={"runs": runs},
    )


def _run(seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ecd_deploy", "run", "digits", "--out", "run", "--set", f"seed={seed}"]
        started = time.perf_counter()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
        run = Path(folder) / "run"
        top1 = json.loads((run / "validation.json").read_text())["onnx_top1"]["candidate"]
        return {
            "seed": seed,
            "exit_code": done.returncode,
            "output": done.stdout.splitlines(),
            "seconds": round(seconds, 1),
            "test_top1": top1["correct"] / top1["images"],
            "gate": json.loads((run / "gate.json").read_text()),
            "metrics": [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()],
        }
