"""What is counted and scored of a classifier on labelled images, image by image and class by class."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.measure.scores.scored import ScoredImages

LARGEST_BRIER: Final = 2.0
LEAST_PROBABILITY: Final = 1e-6
LARGEST_LOG_LOSS: Final = -math.log(LEAST_PROBABILITY)
TOP: Final = 5
_BINS = 15
_RESAMPLES = 500


def confusion_counts(images: ScoredImages) -> NDArray[np.int64]:
    """Images by class (rows) and choice (columns), (classes, classes); images without a choice are in no column."""
    size, chosen = len(images.classes), images.chosen
    counts = np.zeros((size, size), dtype=np.int64)
    decided = chosen >= 0
    np.add.at(counts, (images.labels[decided], chosen[decided]), 1)
    return counts


def images_by_class(images: ScoredImages) -> NDArray[np.int64]:
    """How many images there are of each class, (classes,)."""
    return np.bincount(images.labels, minlength=len(images.classes))


def correct_by_class(images: ScoredImages) -> NDArray[np.int64]:
    """How many images of each class are classified correctly, (classes,)."""
    return np.bincount(images.labels[images.correct], minlength=len(images.classes))


def chosen_by_class(images: ScoredImages) -> NDArray[np.int64]:
    """How often each class is chosen, (classes,)."""
    chosen = images.chosen
    return np.bincount(chosen[chosen >= 0], minlength=len(images.classes))


def in_top(images: ScoredImages) -> NDArray[np.bool_]:
    """Whether at most five classes have a probability that is not below the label's, (N,); never where one is NaN."""
    own = np.take_along_axis(images.probabilities, images.labels[:, None], axis=1)
    within: NDArray[np.bool_] = ((images.probabilities >= own).sum(axis=1) <= TOP) & (images.chosen >= 0)
    return within


def brier_scores(images: ScoredImages) -> NDArray[np.float64]:
    """Squared distance of the probabilities from 1 for the label and 0 for the rest, (N,), in [0, 2] (Brier 1950).

    The largest where they are not finite.
    """
    distances = images.probabilities.astype(np.float64)
    distances[np.arange(len(images)), images.labels] -= 1.0
    scores = np.minimum((distances**2).sum(axis=1), LARGEST_BRIER)
    return np.where(images.chosen >= 0, scores, LARGEST_BRIER)


def log_losses(images: ScoredImages) -> NDArray[np.float64]:
    """Minus the logarithm of the label's probability, (N,), of which none counts as less than 1e-6.

    So no image counts for more than 13.8, which also those do whose probabilities are not finite: without a largest
    value a mean has no bound, since a single image that is not among the tested could change it at will.
    """
    own = images.probabilities[np.arange(len(images)), images.labels].astype(np.float64)
    bounded = np.clip(np.where(images.chosen >= 0, own, 0.0), LEAST_PROBABILITY, 1.0)
    losses: NDArray[np.float64] = -np.log(bounded)
    return losses


@dataclass(frozen=True)
class Interval:
    """A figure between its two-sided confidence bounds."""

    value: float
    low: float
    high: float


def macro_f1(labels: NDArray[np.int64], chosen: NDArray[np.int64], classes: int) -> float:
    """The average over classes of 2 correct / (images + choices); 0 for a class with neither.

    Args:
        labels: (N,).
        chosen: (N,); -1 where there is no choice.
        classes: how many there are.
    """
    correct = np.bincount(labels[labels == chosen], minlength=classes)
    both = np.bincount(labels, minlength=classes) + np.bincount(chosen[chosen >= 0], minlength=classes)
    return float((2 * correct / np.maximum(both, 1)).mean())


def reliability(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Images, mean confidence and accuracy in 15 equal bins of confidence, (15, 3); 0 in an empty bin.

    Args:
        confidence: the largest probability of each image, (N,).
        correct: whether its class is the label, (N,).
    """
    which = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    counts = np.bincount(which, minlength=_BINS)
    sums = (np.bincount(which, weights=values, minlength=_BINS) for values in (confidence, correct))
    return np.stack([counts, *(total / np.maximum(counts, 1) for total in sums)], axis=1)


def calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
    """Expected calibration error: the mean over images of |accuracy - confidence| of their bin (Guo et al. 2017)."""
    counts, mean_confidence, accuracy = reliability(confidence, correct).T
    return float((counts * np.abs(accuracy - mean_confidence)).sum() / max(counts.sum(), 1.0))


def macro_f1_interval(images: ScoredImages, confidence: float) -> Interval:
    """Macro-F1 with a bootstrap interval, which errs more often than it says where images are few: no limit."""
    labels, chosen, classes = images.labels, images.chosen, len(images.classes)
    return _bootstrapped(lambda rows: macro_f1(labels[rows], chosen[rows], classes), len(images), confidence)


def calibration_error_interval(images: ScoredImages, confidence: float) -> Interval:
    """The expected calibration error with a bootstrap interval; images without a choice are left out.

    Both lie too high where images are few, since chance alone parts confidence and accuracy in a bin: no limit.
    """
    decided = images.chosen >= 0
    largest, correct = images.probabilities[decided].max(axis=1).astype(np.float64), images.correct[decided]
    return _bootstrapped(lambda rows: calibration_error(largest[rows], correct[rows]), len(largest), confidence)


def _bootstrapped(figure: Callable[[NDArray[np.int64]], float], images: int, confidence: float) -> Interval:
    """The percentile interval of Efron (1979); the same images give the same one."""
    if not images:
        return Interval(math.nan, math.nan, math.nan)
    generator = np.random.default_rng(0)
    found = [figure(generator.integers(images, size=images)) for _ in range(_RESAMPLES)]
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(figure(np.arange(images)), float(low), float(high))
