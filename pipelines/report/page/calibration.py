"""How far the student's probabilities can be believed, and the figures of the whole test set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.measure.scores.classification import (
    LARGEST_BRIER,
    LARGEST_LOG_LOSS,
    LEAST_PROBABILITY,
    TOP,
    Interval,
    brier_scores,
    calibration_error_interval,
    correct_by_class,
    images_by_class,
    in_top,
    log_losses,
    macro_f1_interval,
    reliability,
)
from ecd_deploy.measure.scores.scored import ScoredImages
from ecd_deploy.measure.statistics import accuracy_interval, average_lower_bound, mean_upper_bound
from ecd_deploy.pipelines.report.page.classes import share_interval
from ecd_deploy.pipelines.report.page.section import Cell, Section, Table
from ecd_deploy.pipelines.report.words import format_number

_CONFIDENCE = 0.95
_ONE_SIDED = (1 + _CONFIDENCE) / 2


@dataclass(frozen=True)
class Bin:
    """Images of similar confidence: how many, their mean confidence, and their accuracy."""

    images: int
    confidence: float
    accuracy: Interval


def bins(images: ScoredImages) -> tuple[Bin, ...]:
    """The bins of confidence that have images, from the least sure."""
    decided = images.chosen >= 0
    largest = images.probabilities[decided].max(axis=1).astype(np.float64)
    found = []
    for count, confidence, accuracy in reliability(largest, images.correct[decided]).tolist():
        if count:
            interval = accuracy_interval(round(count * accuracy), int(count), _CONFIDENCE)
            found.append(Bin(int(count), confidence, Interval(accuracy, *interval)))
    return tuple(found)


def calibration_section(images: ScoredImages) -> Section:
    """Figures of all images, and accuracy by confidence."""
    text = (
        "A student whose confidence can be believed lies on the dotted line. Log loss counts no probability as less "
        f"than {LEAST_PROBABILITY:g}. Macro-F1 and calibration error have bootstrap intervals, which err more often "
        "than they say where images are few: no limit can be set on them."
    )
    rows = tuple(
        (
            Cell(f"{one.images}", one.images),
            Cell(f"{one.confidence:.1%}", one.confidence),
            Cell(f"{one.accuracy.value:.1%}", one.accuracy.value),
            Cell(f"{one.accuracy.low:.1%} to {one.accuracy.high:.1%}", one.accuracy.low),
        )
        for one in bins(images)
    )
    by_bin = Table("Accuracy by confidence", ("images", "mean confidence", "accuracy", "95% interval"), rows)
    return Section("calibration", "Probabilities", text, tables=(_figures(images), by_bin))


def _figures(images: ScoredImages) -> Table:
    found = {
        "balanced accuracy": _balanced(images),
        "top-5": _top5(images),
        "Brier score": _mean(brier_scores(images), LARGEST_BRIER),
        "log loss": _mean(log_losses(images), LARGEST_LOG_LOSS),
        "Macro-F1": macro_f1_interval(images, _CONFIDENCE),
        "expected calibration error": calibration_error_interval(images, _CONFIDENCE),
    }
    rows = tuple(
        (
            Cell(name),
            Cell(format_number(one.value), one.value),
            Cell(f"{format_number(one.low)} to {format_number(one.high)}", one.low),
        )
        for name, one in found.items()
        if one is not None
    )
    return Table("Figures of the whole test set", ("figure", "value", "95% interval"), rows)


def _balanced(images: ScoredImages) -> Interval | None:
    total, right = images_by_class(images), correct_by_class(images)
    if not total.all():
        return None
    low = average_lower_bound(right.tolist(), total.tolist(), _ONE_SIDED)
    high = 1 - average_lower_bound((total - right).tolist(), total.tolist(), _ONE_SIDED)
    return Interval(float((right / total).mean()), low, high)


def _top5(images: ScoredImages) -> Interval | None:
    return share_interval(int(in_top(images).sum()), len(images)) if len(images.classes) > TOP else None


def _mean(values: NDArray[np.float64], largest: float) -> Interval | None:
    if not len(values):
        return None
    low = largest - mean_upper_bound(largest - values, largest, _ONE_SIDED)
    return Interval(float(values.mean()), low, mean_upper_bound(values, largest, _ONE_SIDED))
