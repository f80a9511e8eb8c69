"""How long a rehearsal takes, as it says itself: each in a fresh process, so that what it imports counts."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass

from benchmarks.figures import Figure, Report

ROUNDS = 5


@dataclass(frozen=True)
class Rehearsed:
    """A recipe, by the name of its row, and the seconds that it may take."""

    recipe: str
    name: str
    must_seconds: int


RECIPES = (Rehearsed("digits", "digits, ResNet-8", 5), Rehearsed("cifar100-resnet20", "CIFAR-100, ResNet-20", 20))


def measure() -> Report:
    """Rehearse each recipe on noise, in turns."""
    seconds: dict[str, list[float]] = {entry.recipe: [] for entry in RECIPES}
    for _ in range(ROUNDS):
        for entry in RECIPES:
            seconds[entry.recipe].append(_seconds(entry.recipe))
    figures = [
        Figure.over(
            f"rehearsal, {entry.name}", seconds[entry.recipe], better="lower", must=entry.must_seconds, unit="s"
        )
        for entry in RECIPES
    ]
    return Report(benchmark="rehearsal", figures=figures, setting={"rounds": ROUNDS}, raw={"seconds": seconds})


def _seconds(recipe: str) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "ecd_deploy", "inspect", recipe], capture_output=True, text=True, check=True
    )
    found = re.search(r"images of noise in ([\d.]+) s", done.stdout)
    if found is None:
        raise RuntimeError(f"ecd-deploy inspect {recipe} says nothing of a rehearsal: {done.stdout}")
    return float(found[1])
