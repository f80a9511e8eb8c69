"""Each figure of a candidate and a baseline on the same images that a limit can be set on, with its upper bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from ecd_deploy.measure.scores.estimates import Estimate, empty_classes, mean_below, nothing
from ecd_deploy.measure.scores.scored import ScoredImages
from ecd_deploy.measure.statistics import (
    Count,
    average_drop_upper_bound,
    drop_upper_bound,
    shown_above,
    unpaired_drop_upper_bound,
)


@dataclass(frozen=True)
class Pair:
    """A candidate and a baseline on the same images, in the same order."""

    candidate: ScoredImages
    baseline: ScoredImages


def paired_drop(lost: int, gained: int, images: int, confidence: float) -> Estimate:
    """The drop of a proportion on the same images, with its score bound (Tango 1998)."""
    if not images:
        return nothing("there are no such images")
    return Estimate(
        (lost - gained) / images,
        images,
        lambda times: drop_upper_bound(times * lost, times * gained, times * images, confidence),
    )


def top1_drop(pair: Pair, confidence: float) -> Estimate:
    """How much lower top-1 is than the baseline's."""
    return _flag_drop(pair.candidate.correct, pair.baseline.correct, confidence)


def top5_drop(pair: Pair, confidence: float) -> Estimate:
    """How much lower top-5 is than the baseline's."""
    return _flag_drop(in_top(pair.candidate), in_top(pair.baseline), confidence)


def balanced_accuracy_drop(pair: Pair, confidence: float) -> Estimate:
    """How much lower balanced accuracy is than the baseline's, as its own bound from the score bounds of Tango."""
    if problem := empty_classes(pair.candidate):
        return nothing(problem)
    changes = _changes_by_class(pair)
    return Estimate(
        float(changes.drops.mean()),
        len(pair.candidate),
        lambda times: average_drop_upper_bound(*changes.times(times), confidence),
    )


def worst_recall_drop(pair: Pair, confidence: float) -> Estimate:
    """The largest drop of the recall of any class against the baseline; as `worst_recall`."""
    if problem := empty_classes(pair.candidate):
        return nothing(problem)
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
        return nothing("one of the two never chooses this class")
    drop = counts[0][0] / counts[0][1] - counts[1][0] / counts[1][1]

    def bound(times: float) -> float:
        reference, candidate = (Count(times * correct, times * chosen) for correct, chosen in counts)
        return unpaired_drop_upper_bound(reference, candidate, confidence)

    return Estimate(drop, counts[1][1], bound)


def brier_rise(pair: Pair, confidence: float) -> Estimate:
    """How much higher the Brier score is than the baseline's, paired by image."""
    return mean_below(brier_scores(pair.candidate) - brier_scores(pair.baseline), LARGEST_BRIER, confidence)


def log_loss_rise(pair: Pair, confidence: float) -> Estimate:
    """How much higher the log loss is than the baseline's, paired by image."""
    return mean_below(log_losses(pair.candidate) - log_losses(pair.baseline), LARGEST_LOG_LOSS, confidence)


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


PAIRED: Final[Mapping[str, Callable[[Pair, float], Estimate]]] = {
    "max_baseline_drop": top1_drop,
    "max_balanced_accuracy_drop": balanced_accuracy_drop,
    "max_class_recall_drop": worst_recall_drop,
    "max_top5_drop": top5_drop,
    "max_brier_rise": brier_rise,
    "max_log_loss_rise": log_loss_rise,
}
PAIRED_OF_CLASS: Final[Mapping[str, Callable[[Pair, int, float], Estimate]]] = {
    "max_recall_drop": class_recall_drop,
    "max_precision_drop": class_precision_drop,
}
