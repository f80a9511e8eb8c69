"""Each figure that a limit can be set on, with its one-sided confidence bound on these images and on more of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.measure.classification import (
    LARGEST_BRIER,
    LARGEST_LOG_LOSS,
    brier_scores,
    chosen_by_class,
    correct_by_class,
    images_by_class,
    in_top,
    log_losses,
)
from ecd_deploy.measure.scored import ScoredImages
from ecd_deploy.measure.statistics import (
    Count,
    accuracy_lower_bound,
    average_drop_upper_bound,
    average_lower_bound,
    drop_upper_bound,
    mean_upper_bound,
    shown_above,
    shown_below,
    unpaired_drop_upper_bound,
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

    @property
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


@dataclass(frozen=True)
class Pair:
    """A candidate and a baseline on the same images, in the same order."""

    candidate: ScoredImages
    baseline: ScoredImages


def share(correct: int, images: int, confidence: float) -> Estimate:
    """A proportion, such as top-1, with its exact lower bound (Clopper and Pearson 1934)."""
    if not images:
        return _none("there are no such images")
    return Estimate(
        correct / images, images, lambda times: accuracy_lower_bound(times * correct, times * images, confidence)
    )


def paired_drop(lost: int, gained: int, images: int, confidence: float) -> Estimate:
    """The drop of a proportion on the same images, with its score bound (Tango 1998)."""
    if not images:
        return _none("there are no such images")
    return Estimate(
        (lost - gained) / images,
        images,
        lambda times: drop_upper_bound(times * lost, times * gained, times * images, confidence),
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
    if problem := _empty(images):
        return _none(problem)
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
    if problem := _empty(images):
        return _none(problem)

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
    return _mean(brier_scores(images), LARGEST_BRIER, confidence)


def log_loss(images: ScoredImages, confidence: float) -> Estimate:
    """The mean log loss, of probabilities no less than 1e-6, with the bound of Gaffke (2005)."""
    return _mean(log_losses(images), LARGEST_LOG_LOSS, confidence)


def top1_drop(pair: Pair, confidence: float) -> Estimate:
    """How much lower top-1 is than the baseline's."""
    return _flag_drop(pair.candidate.correct, pair.baseline.correct, confidence)


def top5_drop(pair: Pair, confidence: float) -> Estimate:
    """How much lower top-5 is than the baseline's."""
    return _flag_drop(in_top(pair.candidate), in_top(pair.baseline), confidence)


def balanced_accuracy_drop(pair: Pair, confidence: float) -> Estimate:
    """How much lower balanced accuracy is than the baseline's, as its own bound from the score bounds of Tango."""
    if problem := _empty(pair.candidate):
        return _none(problem)
    changes = _changes_by_class(pair)
    return Estimate(
        float(changes.drops.mean()),
        len(pair.candidate),
        lambda times: average_drop_upper_bound(*changes.times(times), confidence),
    )


def worst_recall_drop(pair: Pair, confidence: float) -> Estimate:
    """The largest drop of the recall of any class against the baseline; as `worst_recall`."""
    if problem := _empty(pair.candidate):
        return _none(problem)
    changes = _changes_by_class(pair)
    lost, gained, of_class = changes.lost.tolist(), changes.gained.tolist(), changes.images.tolist()
    worst = int(changes.drops.argmax())
    return Estimate(
        float(changes.drops[worst]),
        len(pair.candidate),
        lambda times: max(drop_upper_bound(*group, confidence) for group in zip(*changes.times(times), strict=True)),
        lambda limit: bool(shown_above(lost, gained, of_class, limit, confidence)),
        f"{pair.candidate.classes[worst]}, {lost[worst]} lost and {gained[worst]} gained of {of_class[worst]}",
    )


def class_recall_drop(pair: Pair, index: int, confidence: float) -> Estimate:
    """How much lower the recall of a class is than the baseline's."""
    changes = _changes_by_class(pair)
    lost, gained, images = (int(counts[index]) for counts in (changes.lost, changes.gained, changes.images))
    return paired_drop(lost, gained, images, confidence)


def class_precision_drop(pair: Pair, index: int, confidence: float) -> Estimate:
    """How much lower the precision of a class is than the baseline's; they are of different images."""
    counts = [
        (int(correct_by_class(side)[index]), int(chosen_by_class(side)[index]))
        for side in (pair.baseline, pair.candidate)
    ]
    if not all(chosen for _, chosen in counts):
        return _none("one of the two never chooses this class")
    drop = counts[0][0] / counts[0][1] - counts[1][0] / counts[1][1]

    def bound(times: float) -> float:
        reference, candidate = (Count(times * correct, times * chosen) for correct, chosen in counts)
        return unpaired_drop_upper_bound(reference, candidate, confidence)

    return Estimate(drop, counts[1][1], bound)


def brier_rise(pair: Pair, confidence: float) -> Estimate:
    """How much higher the Brier score is than the baseline's, paired by image."""
    return _mean(brier_scores(pair.candidate) - brier_scores(pair.baseline), LARGEST_BRIER, confidence)


def log_loss_rise(pair: Pair, confidence: float) -> Estimate:
    """How much higher the log loss is than the baseline's, paired by image."""
    return _mean(log_losses(pair.candidate) - log_losses(pair.baseline), LARGEST_LOG_LOSS, confidence)


def _mean(values: NDArray[np.float64], largest: float, confidence: float) -> Estimate:
    if not len(values):
        return _none("there are no such images")
    return Estimate(
        float(values.mean()), len(values), lambda times: mean_upper_bound(values, largest, confidence, times)
    )


def _flag_drop(
    candidate: NDArray[np.bool_],
    baseline: NDArray[np.bool_],
    confidence: float,
) -> Estimate:
    lost, gained = int((baseline & ~candidate).sum()), int((candidate & ~baseline).sum())
    return paired_drop(lost, gained, len(candidate), confidence)


@dataclass(frozen=True)
class _Changes:
    """Images lost, gained and in all of each class, (classes,) each."""

    lost: NDArray[np.int64]
    gained: NDArray[np.int64]
    images: NDArray[np.int64]

    @property
    def drops(self) -> NDArray[np.float64]:
        drops: NDArray[np.float64] = (self.lost - self.gained) / self.images
        return drops

    def times(self, times: float) -> tuple[list[float], list[float], list[float]]:
        """The three, if there were this many times as many images."""
        return (times * self.lost).tolist(), (times * self.gained).tolist(), (times * self.images).tolist()


def _changes_by_class(pair: Pair) -> _Changes:
    labels, size = pair.candidate.labels, len(pair.candidate.classes)
    ours, theirs = pair.candidate.correct, pair.baseline.correct
    return _Changes(
        np.bincount(labels[theirs & ~ours], minlength=size),
        np.bincount(labels[ours & ~theirs], minlength=size),
        images_by_class(pair.candidate),
    )


def _empty(images: ScoredImages) -> str | None:
    without = [name for name, count in zip(images.classes, images_by_class(images), strict=True) if not count]
    return f"there are no images of {', '.join(without[:10])}" if without else None


def _none(problem: str) -> Estimate:
    return Estimate(math.nan, 0, lambda _: math.nan, note=problem)
