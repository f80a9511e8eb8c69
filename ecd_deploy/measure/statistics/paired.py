"""The difference of two ways of training over seeds that both used."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from ecd_deploy.compat.scipy import special


def paired_interval(differences: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Student's t interval of the mean of paired differences; None where one pair leaves no spread to judge.

    Raises:
        ValueError: there are no differences.
    """
    if not differences:
        raise ValueError("no differences: nothing was paired")
    if len(differences) == 1:
        return None
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    half = float(special.stdtrit(len(differences) - 1, (1 + confidence) / 2)) * error
    return mean - half, mean + half
