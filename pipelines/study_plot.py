"""The result of a study as a picture: how each arm's student came to its accuracy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ecd_deploy.pipelines.picture import PictureFormat, render
from ecd_deploy.pipelines.study import Study, run_directory
from ecd_deploy.pipelines.study_run import ArmRun

Curve = tuple[float, ...]
"""Validation top-1 of the student in percent, epoch by epoch."""


def read_curves(runs: Sequence[ArmRun], out: Path) -> Mapping[tuple[str, int], Curve]:
    """Read each run's curve from its directory in the study's folder; keys are arm and seed."""
    return {(run.arm, run.seed): _curve(run_directory(out, run.arm, run.seed)) for run in runs}


def plot_curves(study: Study, curves: Mapping[tuple[str, int], Curve], format_name: PictureFormat) -> bytes:
    """Draw validation top-1 by epoch, a band over the seeds of each arm."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="student's validation top-1 (%)", title=study.name)
    for arm in study.arms:
        own = [curve for (name, _), curve in curves.items() if name == arm.name]
        if not own:
            continue
        columns = list(zip(*own, strict=True))
        epochs = range(1, len(columns) + 1)
        marker = "o" if len(columns) == 1 else None
        means = [sum(column) / len(column) for column in columns]
        (line,) = axes.plot(epochs, means, marker=marker, label=arm.title)
        axes.fill_between(epochs, list(map(min, columns)), list(map(max, columns)), color=line.get_color(), alpha=0.2)
    axes.legend(fontsize="small")
    return render(figure, format_name)


def _curve(root: Path) -> Curve:
    lines = (root / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(100 * float(json.loads(line)["validation_top1"]) for line in lines)
