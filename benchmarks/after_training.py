"""Every step after training, one command after the other as a user runs them, with CIFAR-100's 10,000 test images.

ResNet-20 by the recipe `cifar100-resnet20`, trained for one short epoch: how well it is trained does not change how
long the later steps take. The images are those of the folder that ECD_DEPLOY_CIFAR100 names.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Figure, Report

VARIABLE = "ECD_DEPLOY_CIFAR100"
RECIPE = "cifar100-resnet20"
OVERRIDES = ("data.source=imagefolder", "data.train_limit=2000", "train.epochs=1")
STEPS = ("split", "export", "validate", "profile", "gate", "report")
MUST_SECONDS = 60
_VERDICTS = (0, 1, 3)  # of the gate: what it says of a student of one epoch is not the matter here


def measure() -> Report:
    """Train shortly, then time each command."""
    setting = {"recipe": RECIPE, "overrides": OVERRIDES, "commands": STEPS}
    root = os.environ.get(VARIABLE)
    if root is None:
        print(f"after_training is skipped: {VARIABLE} does not name a folder with CIFAR-100's train/ and test/")
        return Report(benchmark="after_training", figures=(), setting={**setting, "skipped": f"{VARIABLE} is not set"})
    with tempfile.TemporaryDirectory() as folder:
        overrides = [*OVERRIDES, f"data.path={Path(root).resolve()}", f"data.cache_dir={folder}/cache"]
        _command(folder, "train", "run", "--recipe", RECIPE, *(part for key in overrides for part in ("--set", key)))
        seconds = {step: _command(folder, step, "run") for step in STEPS}
    total = Figure(
        name="all steps after training, ResNet-20, 10,000 images",
        value=sum(seconds.values()),
        better="lower",
        must=MUST_SECONDS,
        unit="s",
    )
    each = (Figure(name=f"ecd-deploy {step}", value=spent, better="lower", unit="s") for step, spent in seconds.items())
    return Report(benchmark="after_training", figures=(total, *each), setting=setting, raw={"seconds": seconds})


def _command(folder: str, *arguments: str) -> float:
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "ecd_deploy", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode not in _VERDICTS:
        raise RuntimeError(f"ecd-deploy {arguments[0]} ended with {done.returncode}: {done.stderr}")
    return time.perf_counter() - started
