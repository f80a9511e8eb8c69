"""The result of a study as a picture: how each arm's student came to its accuracy."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from ecd_deploy.pipelines.study import Study, run_directory
from ecd_deploy.pipelines.study_run import ArmRun

PLOT_FORMATS: Final[tuple[Literal["png", "svg"], ...]] = ("png", "svg")


def plot_curves(study: Study, runs: Sequence[ArmRun], out: Path, format_name: Literal["png", "svg"]) -> bytes:
    """Draw validation top-1 by epoch, a band over the seeds of each arm."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="student's validation top-1 (%)", title=study.name)
    for arm in study.arms:
        curves = [_curve(run_directory(out, arm.name, run.seed)) for run in runs if run.arm == arm.name]
        if not curves:
            continue
        columns = list(zip(*curves, strict=True))
        epochs = range(1, len(columns) + 1)
        marker = "o" if len(columns) == 1 else None
        means = [sum(column) / len(column) for column in columns]
        (line,) = axes.plot(epochs, means, marker=marker, label=arm.title)
        axes.fill_between(epochs, list(map(min, columns)), list(map(max, columns)), color=line.get_color(), alpha=0.2)
    axes.legend(fontsize="small")
    image = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "ecd-deploy"}):
        # Without a date, the same result is the same file.
        figure.savefig(image, format=format_name, metadata={"Date": None} if format_name == "svg" else None)
    return image.getvalue()


def _curve(root: Path) -> list[float]:
    lines = (root / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [100 * float(json.loads(line)["validation_top1"]) for line in lines]
