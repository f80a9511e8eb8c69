"""The result of a study as a picture: how each arm's student came to its accuracy, and what it gains by that."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecd_deploy.pipelines.record.names import METRICS_NAME
from ecd_deploy.pipelines.report.figures import PictureFormat, render
from ecd_deploy.pipelines.study.run import ArmRun
from ecd_deploy.pipelines.study.study import Study, run_directory
from ecd_deploy.pipelines.study.table import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = tuple[float, ...]
"""Validation top-1 of the student in percent, epoch by epoch; empty without a validation split."""

_FEW_ARMS = 10
_HEIGHT = 5.0
_HEIGHT_OF_ARM = 0.4


def read_curves(runs: Sequence[ArmRun], out: Path) -> Mapping[tuple[str, int], Curve]:
    """Read each run's curve from its directory in the study's folder; keys are arm and seed."""
    return {(run.arm, run.seed): _curve(run_directory(out, run.arm, run.seed)) for run in runs}


def plot(
    study: Study, curves: Mapping[tuple[str, int], Curve], table: Sequence[Row], format_name: PictureFormat
) -> bytes:
    """Draw validation top-1 by epoch with a band over the seeds, and each arm's difference to its baseline.

    Args:
        study: which arms there are, in which order.
        curves: of each arm and seed that is finished.
        table: the differences with their intervals.
        format_name: of the picture.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    compared = [row for row in table if row.difference is not None]
    height = max(_HEIGHT, 1 + _HEIGHT_OF_ARM * len(study.arms))
    # Without a validation split there are no curves; a picture of neither says so.
    panels = int(any(curves.values()) or not compared) + bool(compared)
    figure = Figure(figsize=(2 + 6 * panels, height), layout="constrained")
    figure.suptitle(study.name)
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    palette = mpl.colormaps["tab10" if len(study.arms) <= _FEW_ARMS else "tab20"]
    colours = {arm.name: palette(index % palette.N) for index, arm in enumerate(study.arms)}
    if compared:
        _draw_differences(axes.pop(), study, compared, colours)
    for left in axes:
        _draw_curves(left, study, curves, colours)
    return render(figure, format_name)


_Colours = Mapping[str, tuple[float, float, float, float]]


def _draw_curves(axes: Axes, study: Study, curves: Mapping[tuple[str, int], Curve], colours: _Colours) -> None:
    axes.set(xlabel="epoch", ylabel="student's validation top-1 (%)")
    axes.locator_params(axis="x", integer=True)
    for arm in study.arms:
        own = [curve for (name, _), curve in curves.items() if name == arm.name and curve]
        if not own:
            continue
        columns = list(zip(*own, strict=True))
        epochs = range(1, len(columns) + 1)
        marker = "o" if len(columns) == 1 else None
        means = [sum(column) / len(column) for column in columns]
        colour = colours[arm.name]
        axes.plot(epochs, means, marker=marker, label=arm.title, color=colour)
        axes.fill_between(epochs, list(map(min, columns)), list(map(max, columns)), color=colour, alpha=0.2)
    if axes.lines:
        axes.legend(fontsize="small")
    else:
        axes.text(0.5, 0.5, "no curves: the runs have no validation split", ha="center", transform=axes.transAxes)


def _draw_differences(axes: Axes, study: Study, compared: Sequence[Row], colours: _Colours) -> None:
    """One line an arm, from the top: a point, and its interval where there are several seeds."""
    several = len({row.baseline for row in compared}) > 1
    labels = []
    for height, row in enumerate(compared):
        colour = colours[row.arm]
        if row.difference_low is not None and row.difference_high is not None:
            axes.plot([row.difference_low, row.difference_high], [height] * 2, marker="|", color=colour, linewidth=2)
            axes.set_title("mean with its 95 % interval", fontsize="medium")
        if row.difference is not None:
            axes.plot([row.difference], [height], marker="o", color=colour)
        labels.append(row.label + (f"\nagainst {study.arm(row.baseline).title}" if several else ""))
    axes.axvline(0, color="black", linewidth=1)
    axes.set_xlabel("difference from the baseline in test top-1, last epoch (points)")
    axes.set_yticks(range(len(labels)), labels, fontsize="small" if several else "medium")
    axes.set_ylim(len(labels) - 0.5, -0.5)


def curve_of(epochs: Iterable[Mapping[str, Any]]) -> Curve:
    """The curve of a run's `metrics.jsonl`, one mapping a line."""
    return tuple(100 * float(epoch["validation_top1"]) for epoch in epochs if "validation_top1" in epoch)


def _curve(root: Path) -> Curve:
    lines = (root / METRICS_NAME).read_text(encoding="utf-8").splitlines()
    return curve_of(json.loads(line) for line in lines)
