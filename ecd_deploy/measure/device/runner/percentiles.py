"""Percentiles of latencies and bounds on them, by order statistics: free of any distribution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

FRACTIONS = (0.1, 0.5, 0.9, 0.95, 0.99)
_CONFIDENCE = 0.99


def percentiles_of(samples: Sequence[float]) -> list[dict[str, Any]]:
    """Each percentile with its upper bound; None where the samples are too few."""
    ordered, entries = sorted(samples), []
    for fraction in FRACTIONS:
        needed = samples_needed(fraction)
        entry: dict[str, Any] = {"fraction": fraction, "samples_needed": needed}
        enough = len(ordered) >= needed
        entry["value_ms"] = percentile(ordered, fraction) if enough else None
        entry["upper_bound_ms"] = percentile_upper_bound(ordered, fraction) if enough else None
        entries.append(entry)
    return entries


def percentile(samples: Sequence[float], fraction: float) -> float:
    """The smallest sample that at least `fraction` of all samples do not exceed (nearest rank)."""
    return sorted(samples)[max(math.ceil(fraction * len(samples)) - 1, 0)]


def percentile_upper_bound(samples: Sequence[float], fraction: float, confidence: float = _CONFIDENCE) -> float | None:
    """Upper confidence bound on a percentile by an order statistic; None where the samples are too few."""
    rank = _binomial_quantile(len(samples), fraction, confidence) + 1
    return sorted(samples)[rank - 1] if rank <= len(samples) else None


def samples_needed(fraction: float, confidence: float = _CONFIDENCE) -> int:
    """Least number of samples that bound a percentile: 44 for p90, 459 for p99, as MLPerf LoadGen stops early."""
    return math.ceil(math.log(1 - confidence) / math.log(fraction))


def median_range(values: Sequence[float], confidence: float = 0.95) -> list[float] | None:
    """Two order statistics between which the median lies with at least this confidence; None of fewer than 6."""
    ordered, tail, rank = sorted(values), 0.0, 0
    while rank < len(ordered) // 2:
        tail += math.comb(len(ordered), rank) / (1 << len(ordered))
        if 2 * tail > 1 - confidence:
            break
        rank += 1
    return [ordered[rank - 1], ordered[-rank]] if rank else None


def _binomial_quantile(total: int, probability: float, confidence: float) -> int:
    deviation = math.sqrt(total * probability * (1 - probability))
    count = max(int(total * probability - 12 * deviation) - 1, 0)  # what lies below weighs nothing
    reached = 0.0
    while count <= total:
        reached += math.exp(
            math.lgamma(total + 1)
            - math.lgamma(count + 1)
            - math.lgamma(total - count + 1)
            + count * math.log(probability)
            + (total - count) * math.log1p(-probability)
        )
        if reached >= confidence:
            return count
        count += 1
    return total
