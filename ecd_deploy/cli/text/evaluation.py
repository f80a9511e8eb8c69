"""An evaluation in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from ecd_deploy.measure.statistics import accuracy_interval
from ecd_deploy.pipelines.evaluate.result import Evaluation

_WORST_CLASSES = 10


def print_evaluation(found: Evaluation, console: Console) -> None:
    """Print what was evaluated, the accuracies, and the classes that are recognised least."""
    images = found.images
    console.print(f"{found.model.file}: {found.preprocessing.words()} ({found.preprocessing_from})", soft_wrap=True)
    for warning in filter(None, (found.classes_warning, *found.warnings)):
        console.print(f"Warning: {warning}", style="bold yellow", soft_wrap=True)
    low, high = accuracy_interval(found.correct, images.images, 0.95)
    console.print(f"top-1 {found.top1:.2%} (95% interval {low:.2%} to {high:.2%}), {found.correct} of {images.images}")
    if found.top5 is not None:
        console.print(f"top-5 {found.top5:.2%}")
    console.print(f"balanced accuracy {found.balanced_accuracy:.2%}")
    console.print(f"mean confidence {found.mean_confidence:.2%}")
    if images.skipped:
        console.print(f"{images.skipped} image(s) cannot be used and were skipped")
    worst = sorted(found.classes, key=lambda entry: (entry.recall is None, entry.recall))[:_WORST_CLASSES]
    table = Table("class", "recall", "precision", "images", box=None, header_style="bold")
    for entry in worst:
        table.add_row(entry.name, _share(entry.recall), _share(entry.precision), str(entry.images))
    if len(found.classes) > _WORST_CLASSES:
        console.print(f"the {_WORST_CLASSES} classes of the least recall:")
    console.print(table)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"
