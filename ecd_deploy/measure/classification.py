"""What is counted and scored of a classifier on labelled images, image by image and class by class."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.measure.scored import ScoredImages

LARGEST_BRIER: Final = 2.0
LEAST_PROBABILITY: Final = 1e-6
LARGEST_LOG_LOSS: Final = -math.log(LEAST_PROBABILITY)
TOP: Final = 5
_BINS = 15


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


def macro_f1(confusion: NDArray[np.int64], images: NDArray[np.int64]) -> float:
    """The average over classes of 2 correct / (images + choices); 0 for a class with neither.

    Args:
        confusion: as from `confusion_counts`.
        images: of each class, as from `images_by_class`.
    """
    both = images + confusion.sum(axis=0)
    return float((2 * np.diagonal(confusion) / np.maximum(both, 1)).mean())


def reliability(images: ScoredImages) -> NDArray[np.float64]:
    """Images, mean confidence and accuracy in 15 equal bins of confidence, (15, 3); 0 in an empty bin.

    Confidence is the largest probability; images without a choice are left out.
    """
    decided = images.chosen >= 0
    confidence = images.probabilities[decided].max(axis=1).astype(np.float64)
    correct = images.correct[decided].astype(np.float64)
    which = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    counts = np.bincount(which, minlength=_BINS)
    sums = (np.bincount(which, weights=values, minlength=_BINS) for values in (confidence, correct))
    return np.stack([counts, *(total / np.maximum(counts, 1) for total in sums)], axis=1)


def calibration_error(images: ScoredImages) -> float:
    """Expected calibration error: the mean over images of |accuracy - confidence| of their bin (Guo et al. 2017)."""
    counts, confidence, accuracy = reliability(images).T
    return float((counts * np.abs(accuracy - confidence)).sum() / max(counts.sum(), 1.0))
