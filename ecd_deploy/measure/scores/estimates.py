"""Each figure that a limit can be set on, with its one-sided confidence bound on these images and on more of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.measure.scores.classification import (
    LARGEST_BRIER,
    LARGEST_LOG_LOSS,
    brier_scores,
    chosen_by_class,
    correct_by_class,
    images_by_class,
    in_top,
    log_losses,
)
from ecd_deploy.measure.scores.scored import ScoredImages
from ecd_deploy.measure.statistics import (
    accuracy_lower_bound,
    average_lower_bound,
    mean_upper_bound,
    shown_below,
)

_MOST_TIMES = 2.0**16
_CLOSE_ENOUGH = 1.005


@dataclass(frozen=True)
class Estimate:
    """A figure with a one-sided confidence bound.

    Attributes:
        value: on these images.
        images: that it is of.
        bound_of: the bound, if there were this many times as many images at the same rates.
        misses: whether a limit is shown to be missed, if that is not seen from the value alone, as of the worst class.
        note: what else is to be said of the value.
    """

    value: float
    images: int
    bound_of: Callable[[float], float]
    misses: Callable[[float], bool] | None = None
    note: str = ""

    @cached_property
    def bound(self) -> float:
        """The bound on these images."""
        return self.bound_of(1.0)

    def images_that_decide(self, limit: float, *, at_least: bool) -> int | None:
        """About how many images at these rates would meet the limit; None where no number of them would."""
        sign = 1.0 if at_least else -1.0
        if sign * self.value <= sign * limit:
            return None

        def meets(times: float) -> bool:
            return sign * self.bound_of(times) >= sign * limit

        high = 1.0
        while not meets(high):
            high *= 2
            if high > _MOST_TIMES:
                return None
        low = high / 2
        while high / low > _CLOSE_ENOUGH:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if meets(middle) else (middle, high)
        return math.ceil(high * self.images)


def share(correct: int, images: int, confidence: float) -> Estimate:
    """A proportion, such as top-1, with its exact lower bound (Clopper and Pearson 1934)."""
    if not images:
        return nothing("there are no such images")
    return Estimate(
        correct / images, images, lambda times: accuracy_lower_bound(times * correct, times * images, confidence)
    )


def top1(images: ScoredImages, confidence: float) -> Estimate:
    """Top-1."""
    return share(int(images.correct.sum()), len(images), confidence)


def top5(images: ScoredImages, confidence: float) -> Estimate:
    """Top-5."""
    return share(int(in_top(images).sum()), len(images), confidence)


def balanced_accuracy(images: ScoredImages, confidence: float) -> Estimate:
    """The average recall of the classes, with the bound of Zou, Huang and Zhang (2009)."""
    correct, of_class = correct_by_class(images), images_by_class(images)
    if problem := empty_classes(images):
        return nothing(problem)
    return Estimate(
        float((correct / of_class).mean()),
        len(images),
        lambda times: average_lower_bound((times * correct).tolist(), (times * of_class).tolist(), confidence),
    )


def worst_recall(images: ScoredImages, confidence: float) -> Estimate:
    """The least recall of any class.

    Its bound is the least of the classes' exact bounds, which needs no correction for their number (Berger 1982). The
    least of many observed recalls is low by chance alone, so a miss must be shown, by Holm's procedure.
    """
    correct, of_class = correct_by_class(images), images_by_class(images)
    if problem := empty_classes(images):
        return nothing(problem)

    def bound(times: float) -> float:
        pairs = zip((times * correct).tolist(), (times * of_class).tolist(), strict=True)
        return min(accuracy_lower_bound(right, total, confidence) for right, total in pairs)

    worst = int((correct / of_class).argmin())
    return Estimate(
        float(correct[worst] / of_class[worst]),
        len(images),
        bound,
        lambda limit: bool(shown_below(correct.tolist(), of_class.tolist(), limit, confidence)),
        f"{images.classes[worst]}, {correct[worst]} of {of_class[worst]}",
    )


def class_recall(images: ScoredImages, index: int, confidence: float) -> Estimate:
    """The share of the images of a class that are recognised."""
    return share(int(correct_by_class(images)[index]), int(images_by_class(images)[index]), confidence)


def class_precision(images: ScoredImages, index: int, confidence: float) -> Estimate:
    """The share of the images taken for a class that are of it, with the classes as frequent as here."""
    return share(int(correct_by_class(images)[index]), int(chosen_by_class(images)[index]), confidence)


def brier(images: ScoredImages, confidence: float) -> Estimate:
    """The mean Brier score, in [0, 2], with the bound of Gaffke (2005)."""
    return mean_below(brier_scores(images), LARGEST_BRIER, confidence)


def log_loss(images: ScoredImages, confidence: float) -> Estimate:
    """The mean log loss, of probabilities no less than 1e-6, with the bound of Gaffke (2005)."""
    return mean_below(log_losses(images), LARGEST_LOG_LOSS, confidence)


def mean_below(values: NDArray[np.float64], largest: float, confidence: float) -> Estimate:
    """The mean of values that are at most `largest`, with its bound (Gaffke 2005)."""
    if not len(values):
        return nothing("there are no such images")
    return Estimate(
        float(values.mean()), len(values), lambda times: mean_upper_bound(values, largest, confidence, times)
    )


def empty_classes(images: ScoredImages) -> str | None:
    """Which classes have no images, in words; None if each has some."""
    without = [name for name, count in zip(images.classes, images_by_class(images), strict=True) if not count]
    return f"there are no images of {', '.join(without[:10])}" if without else None


def nothing(problem: str) -> Estimate:
    """A figure that there is none of, and why."""
    return Estimate(math.nan, 0, lambda _: math.nan, note=problem)


OWN: Final[Mapping[str, Callable[[ScoredImages, float], Estimate]]] = {
    "min_top1": top1,
    "min_balanced_accuracy": balanced_accuracy,
    "min_class_recall": worst_recall,
    "min_top5": top5,
    "max_brier": brier,
    "max_log_loss": log_loss,
}
OWN_OF_CLASS: Final[Mapping[str, Callable[[ScoredImages, int, float], Estimate]]] = {
    "min_recall": class_recall,
    "min_precision": class_precision,
}
