"""Samples in the order of time, each of which may resemble those before: how many they are worth, and their median.

A host gets slower and faster while it measures, so that blocks of latencies remember their neighbours. Bounds that
take them for independent are too narrow: with a memory of one half they err 12 % of the time instead of 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.compat.scipy import special

_STRONGEST_MEMORY = 0.95
_LAGS = np.arange(1, 200)
_SIGNS_OF_RANKS = 2 / 3
"""Correlation of signs over that of ranks, for weakly correlated normal variables."""


def effective_samples(samples: Sequence[float]) -> float:
    """How many independent samples give a median as certain as these do, between 1 and their number.

    The larger of two estimates of the memory counts. One follows a first-order process whose rank correlation
    at lag one, corrected for its bias in short series (Marriott and Pope 1954), is that of the samples. The other
    sums the correlations of pairs of lags as long as they are positive and fall (Geyer 1992), and so sees a slow
    memory below quick noise.
    """
    count = len(samples)
    ranks = _centred_ranks(samples)
    power = float(ranks @ ranks)
    if count < 3 or power == 0.0:
        return float(count)

    def correlation(lag: int) -> float:
        found = float(ranks[lag:] @ ranks[:-lag]) / power
        return found + (1 + 3 * max(found, 0.0)) / count

    memory = 2 * math.sin(math.pi / 6 * min(max(correlation(1), 0.0), _STRONGEST_MEMORY))
    first_order = float(np.arcsin(memory**_LAGS).sum()) * 2 / math.pi
    pairs, smallest = 0.0, math.inf
    for lag in range(1, count // 4, 2):
        smallest = min(smallest, correlation(lag) + correlation(lag + 1))
        if smallest <= 0:
            break
        pairs += smallest
    inflation = 1 + 2 * max(first_order, _SIGNS_OF_RANKS * pairs)
    return max(count / inflation, 1.0)


def median_bounds(samples: Sequence[float], confidence: float) -> tuple[float, float]:
    """Lower and upper confidence bound on a median, one-sided each, by order statistics, of samples in their order.

    The ranks are those of a median of `effective_samples` independent samples. Infinite where these are too few for
    any sample to be a bound.
    """
    ordered = sorted(samples)
    count, effective = len(ordered), effective_samples(samples)
    quantile = float(special.stdtrit(max(effective - 1, 1.0), confidence))
    rank = math.ceil(count / 2 + quantile * count / (2 * math.sqrt(max(effective, 1.0))) + 0.5)
    if rank > count:
        return -math.inf, math.inf
    return ordered[count - rank], ordered[rank - 1]


def _centred_ranks(samples: Sequence[float]) -> NDArray[np.float64]:
    """Ranks about zero, those of equal samples averaged."""
    _, index, sizes = np.unique(np.asarray(samples, dtype=np.float64), return_inverse=True, return_counts=True)
    middle = np.cumsum(sizes) - (sizes + 1) / 2
    ranks: NDArray[np.float64] = middle[index] - (len(samples) - 1) / 2
    return ranks
