"""From a trained checkpoint to a gated, reported ONNX file, with CIFAR-100's 10,000 test images.

ResNet-20 by the recipe `cifar100-resnet20`, trained shortly: so long that its logits are of the usual size, for where
they are not, `validate` also seeks the layer that differs. All steps in one process, as `run --resume` takes them,
against a script by hand that makes the same files and checks (`benchmarks.by_hand`), in turns; then one command after
the other. The images are those of the folder that ECD_DEPLOY_CIFAR100 names, decoded before.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import Figure, Report

VARIABLE = "ECD_DEPLOY_CIFAR100"
RECIPE = "cifar100-resnet20"
OVERRIDES = ("data.source=imagefolder", "data.train_limit=4000", "train.epochs=4")
STEPS = ("split", "export", "validate", "profile", "gate", "report")
MUST_SECONDS, MUST_RATIO, ROUNDS = 25, 1.2, 3
_VERDICTS = (0, 1, 3)  # of the gate: what it says of a student of four epochs is not the matter here


def measure() -> Report:
    """Train shortly, then time the whole, the script by hand, and each command."""
    setting = {"recipe": RECIPE, "overrides": OVERRIDES, "commands": STEPS, "rounds": ROUNDS}
    root = os.environ.get(VARIABLE)
    if root is None:
        print(f"after_training is skipped: {VARIABLE} does not name a folder with CIFAR-100's train/ and test/")
        return Report(benchmark="after_training", figures=(), setting={**setting, "skipped": f"{VARIABLE} is not set"})
    images = Path(root).resolve()
    with tempfile.TemporaryDirectory() as folder:
        given = [*OVERRIDES, f"data.path={images}", f"data.cache_dir={folder}/cache"]
        sets = [part for key in given for part in ("--set", key)]
        _command(folder, ("ecd_deploy", "train", "run", "--recipe", RECIPE, *sets))
        whole: list[float] = []
        by_hand: list[float] = []
        for turn in range(ROUNDS):
            shutil.copytree(f"{folder}/run", f"{folder}/whole-{turn}")
            resumed = ("ecd_deploy", "run", RECIPE, "--resume", "--out", f"whole-{turn}", *sets)
            whole.append(_command(folder, resumed))
            by_hand.append(_command(folder, ("benchmarks.by_hand", "run", str(images / "test"), f"hand-{turn}")))
        seconds = {step: _command(folder, ("ecd_deploy", step, "run")) for step in STEPS}
    ratios = [mine / other for mine, other in zip(whole, by_hand, strict=True)]
    lower, median, upper = statistics.quantiles(ratios, n=4, method="inclusive")
    figures = (
        Figure(
            name="all steps after training in one process, ResNet-20, 10,000 images",
            value=statistics.median(whole),
            better="lower",
            must=MUST_SECONDS,
            unit="s",
        ),
        Figure(
            name="all steps after training over a script by hand",
            value=median,
            lower=lower,
            upper=upper,
            better="lower",
            must=MUST_RATIO,
        ),
        Figure(name="all steps, one command each", value=sum(seconds.values()), better="lower", unit="s"),
        *(Figure(name=f"ecd-deploy {step}", value=spent, better="lower", unit="s") for step, spent in seconds.items()),
    )
    raw = {"whole": whole, "by_hand": by_hand, "seconds": seconds}
    return Report(benchmark="after_training", figures=figures, setting=setting, raw=raw)


def _command(folder: str, words: Sequence[str]) -> float:
    """Seconds of a module of Python that is run in a folder."""
    here = str(Path(__file__).parents[1])
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": here},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in _VERDICTS or "Traceback" in done.stderr:
        raise RuntimeError(f"{' '.join(words[:2])} ended with {done.returncode}: {done.stderr}")
    return time.perf_counter() - started
