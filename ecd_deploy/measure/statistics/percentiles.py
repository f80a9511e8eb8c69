"""Bounds on a percentile, by order statistics: free of any distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ecd_deploy.compat.scipy import special


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


def _binomial_quantile(probability: float, trials: int, chance: float) -> int:
    """The least number of successes that is not exceeded with at least this probability."""
    estimate = math.ceil(special.bdtrik(probability, trials, chance))
    below = max(estimate - 1, 0)  # the estimate, a real number, may be above a whole one by a last bit
    return below if special.bdtr(below, trials, chance) >= probability else estimate
