"""The statistics of the gate: bounds on an accuracy, on a paired drop, and on a percentile.

Every bound is one-sided and distribution-free or exact where that is possible. The distributions come from
`scipy.special`: `scipy.stats` knows them too, but takes a second to load, in every command that decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy import special


def accuracy_lower_bound(correct: int, total: int, confidence: float) -> float:
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


def accuracy_interval(correct: int, total: int, confidence: float) -> tuple[float, float]:
    """Two-sided confidence interval of an accuracy (Clopper and Pearson 1934, exact).

    Raises:
        ValueError: no images, or more correct ones than images.
    """
    one_sided = (1 + confidence) / 2
    lower = accuracy_lower_bound(correct, total, one_sided)
    return lower, 1.0 - accuracy_lower_bound(total - correct, total, one_sided)


def drop_upper_bound(lost: int, gained: int, total: int, confidence: float) -> float:
    """One-sided upper confidence bound on an accuracy drop measured on the same images.

    The score interval for a paired difference (Tango 1998): the drop is (lost - gained) / total, and
    the images on which both models agree narrow the bound.

    Args:
        lost: images that only the reference classifies correctly.
        gained: images that only the candidate classifies correctly.
        total: images in all, at least one.
        confidence: for example 0.95.

    Raises:
        ValueError: no images, or counts that exceed them.
    """
    _check_counts(lost + gained, total)
    quantile = float(special.ndtri(confidence))
    observed = (lost - gained) / total
    if observed >= 1.0:
        return 1.0

    def excess(drop: float) -> float:
        return _paired_score(lost, gained, total, drop) + quantile

    low, high = observed, 1.0 - 1e-12
    if excess(high) > 0:
        return 1.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return high


def _paired_score(lost: int, gained: int, total: int, drop: float) -> float:
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


def samples_needed(percentile: float, confidence: float = 0.99) -> int:
    """Least number of samples for which the largest one bounds a percentile from above.

    44 for p90 and 459 for p99 at 99 % confidence, as in MLPerf LoadGen's early stopping.
    """
    return math.ceil(math.log(1 - confidence) / math.log(percentile))


def percentile(samples: Sequence[float], fraction: float) -> float:
    """The smallest sample that at least `fraction` of all samples do not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(math.ceil(fraction * len(ordered)) - 1, 0)]


def percentile_upper_bound(samples: Sequence[float], fraction: float, confidence: float = 0.99) -> float | None:
    """Distribution-free upper confidence bound on a percentile: an order statistic.

    Returns None where the samples are too few for any of them to be one.
    """
    if len(samples) < samples_needed(fraction, confidence):
        return None
    rank = _binomial_quantile(confidence, len(samples), fraction) + 1
    return sorted(samples)[rank - 1] if rank <= len(samples) else None


def mcnemar_p_value(lost: int, gained: int) -> float:
    """Exact two-sided p-value of McNemar's test: are losses and gains equally likely (McNemar 1947)?

    A large value does not say that nothing was lost; `drop_upper_bound` does.
    """
    return min(1.0, 2 * float(special.bdtr(min(lost, gained), lost + gained, 0.5))) if lost + gained else 1.0


def _binomial_quantile(probability: float, trials: int, chance: float) -> int:
    """The least number of successes that is not exceeded with at least this probability."""
    estimate = math.ceil(special.bdtrik(probability, trials, chance))
    below = max(estimate - 1, 0)  # the estimate, a real number, may be above a whole one by a last bit
    return below if special.bdtr(below, trials, chance) >= probability else estimate


def _check_counts(part: int, total: int) -> None:
    if total < 1:
        raise ValueError("no images: an empty set decides nothing")
    if not 0 <= part <= total:
        raise ValueError(f"{part} of {total} images is impossible")
