"""Bounds on a proportion, such as an accuracy, and on a paired difference of two."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ecd_deploy.compat.scipy import special


@dataclass(frozen=True)
class Count:
    """How many of some images are correct; fractions of images stand for other numbers of them at the same rate."""

    correct: float
    images: float

    @property
    def share(self) -> float:
        """The proportion of correct ones."""
        return self.correct / self.images


def accuracy_lower_bound(correct: float, total: float, confidence: float) -> float:
    """One-sided lower confidence bound on an accuracy (Clopper and Pearson 1934, exact).

    Args:
        correct: images classified correctly.
        total: images in all, at least one.
        confidence: for example 0.95.

    Raises:
        ValueError: no images, or more correct ones than images.
    """
    _check_counts(correct, total)
    if correct == 0:
        return 0.0
    return float(special.betaincinv(correct, total - correct + 1, 1 - confidence))


def accuracy_interval(correct: float, total: float, confidence: float) -> tuple[float, float]:
    """Two-sided confidence interval of an accuracy (Clopper and Pearson 1934, exact).

    Raises:
        ValueError: no images, or more correct ones than images.
    """
    one_sided = (1 + confidence) / 2
    lower = accuracy_lower_bound(correct, total, one_sided)
    return lower, 1.0 - accuracy_lower_bound(total - correct, total, one_sided)


def drop_upper_bound(lost: float, gained: float, total: float, confidence: float) -> float:
    """One-sided upper confidence bound on an accuracy drop measured on the same images.

    The score interval for a paired difference (Tango 1998): the drop is (lost - gained) / total, and the images on
    which both models agree narrow the bound. It is approximate, and errs most where the candidate only loses: where
    nothing is gained, the exact bound on the share of losses (Clopper and Pearson 1934) is taken if it is larger.

    Args:
        lost: images that only the reference classifies correctly.
        gained: images that only the candidate classifies correctly.
        total: images in all, at least one.
        confidence: for example 0.95.

    Raises:
        ValueError: no images, or counts that exceed them.
    """
    _check_counts(lost + gained, total)
    score = _score_upper_bound(lost, gained, total, confidence)
    return score if gained else max(score, 1.0 - accuracy_lower_bound(total - lost, total, confidence))


def _score_upper_bound(lost: float, gained: float, total: float, confidence: float) -> float:
    quantile = float(special.ndtri(confidence))
    observed = (lost - gained) / total
    if observed >= 1.0:
        return 1.0

    def excess(drop: float) -> float:
        return paired_score(lost, gained, total, drop) + quantile

    low, high = observed, 1.0 - 1e-12
    if excess(high) > 0:
        return 1.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return high


def unpaired_drop_upper_bound(reference: Count, candidate: Count, confidence: float) -> float:
    """One-sided upper confidence bound on the difference of two proportions whose images are not the same.

    The distances of the bounds of Clopper and Pearson from the estimates, added in squares (Newcombe 1998, method 10,
    with exact bounds in place of score bounds). Proportions that rise and fall together, as two precisions on one test
    set do, only make it wider than it need be.

    Raises:
        ValueError: no images, or more correct ones than images.
    """
    above = 1 - accuracy_lower_bound(reference.images - reference.correct, reference.images, confidence)
    below = accuracy_lower_bound(candidate.correct, candidate.images, confidence)
    drop = reference.share - candidate.share
    return min(drop + math.hypot(above - reference.share, candidate.share - below), 1.0)


def paired_score(lost: float, gained: float, total: float, drop: float) -> float:
    """Score statistic of the hypothesis that the true drop is `drop` (Tango 1998, equation 5).

    The nuisance parameter, the probability of a gain, is its maximum-likelihood value under it.
    """
    if drop == (lost - gained) / total:
        return 0.0
    linear = -lost - gained + (2 * total - lost + gained) * drop
    constant = -gained * drop * (1 - drop)
    gain_probability = (math.sqrt(linear * linear - 8 * total * constant) - linear) / (4 * total)
    variance = total * (2 * gain_probability + drop * (1 - drop))
    return (lost - gained - total * drop) / math.sqrt(variance) if variance > 0 else -math.inf


def mcnemar_p_value(lost: int, gained: int) -> float:
    """Exact two-sided p-value of McNemar's test: are losses and gains equally likely (McNemar 1947)?

    A large value does not say that nothing was lost; `drop_upper_bound` does.
    """
    return min(1.0, 2 * float(special.bdtr(min(lost, gained), lost + gained, 0.5))) if lost + gained else 1.0


def _check_counts(part: float, total: float) -> None:
    if total <= 0:
        raise ValueError("no images: an empty set decides nothing")
    if not 0 <= part <= total:
        raise ValueError(f"{part} of {total} images is impossible")
