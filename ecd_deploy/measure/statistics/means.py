"""An upper bound on the mean of a bounded quantity, such as a Brier score, whatever its distribution."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.compat.scipy import special

_LARGEST_EXPONENT = 34.0  # beyond it a float cannot tell 1 - exp(-y) from 1


def mean_upper_bound(values: NDArray[np.float64], largest: float, confidence: float, times: float = 1.0) -> float:
    """One-sided upper confidence bound on the mean of values that never exceed `largest` (Gaffke 2005).

    The quantile of a mean of the values and of one more, `largest`, under random weights from a flat Dirichlet
    distribution: of zeros and ones it is the bound of Clopper and Pearson, and it does not trust a sample in which
    a rare large value is missing, as a bootstrap does. No distribution is known on which it errs more often than it
    says (Learned-Miller and Thomas 2019, who conjecture that there is none); `benchmarks/gate_calibration.py` tries
    scores of classifiers. The quantile is computed by the saddlepoint approximation of Lugannani and Rice (1980).

    Args:
        values: (N,), at least one.
        largest: that a value can have.
        confidence: for example 0.95.
        times: as if each value had been seen this often.

    Raises:
        ValueError: no values, or one above the largest.
    """
    if not len(values):
        raise ValueError("no images: an empty set decides nothing")
    if values.max() > largest:
        raise ValueError(f"a value of {values.max()} exceeds {largest}, said to be the largest")
    if values.min() == largest:
        return largest

    from scipy.optimize import brentq  # takes a while to load, and few limits need it

    def excess(bound: float) -> float:
        return _chance_above(values, largest, bound, times) - (1 - confidence)

    return float(brentq(excess, float(values.mean()), largest, xtol=1e-12 * max(largest, 1.0)))


def _chance_above(values: NDArray[np.float64], largest: float, bound: float, times: float) -> float:
    """The chance that the randomly weighted mean exceeds `bound`, which lies above their plain mean.

    It does where the sum of (value - bound) times an exponential variable is positive: its cumulant generating
    function is -sum(log(1 - s (value - bound))).
    """
    from scipy.optimize import brentq

    offsets, extra = values - bound, largest - bound
    if extra <= 0:
        return 0.0
    if times * float(offsets.sum()) + extra >= 0:
        return 1.0

    def at(y: float) -> float:
        return -math.expm1(-y) / extra  # keeps 1 - s * extra, which is exp(-y), exact where it is next to nothing

    def slope(y: float) -> float:
        return times * float((offsets / (1 - at(y) * offsets)).sum()) + extra * math.exp(y)

    y = float(brentq(slope, 0.0, _LARGEST_EXPONENT, xtol=1e-12))
    s = at(y)
    cumulant = -times * float(np.log1p(-s * offsets).sum()) + y
    curvature = times * float(((offsets / (1 - s * offsets)) ** 2).sum()) + (extra * math.exp(y)) ** 2
    root, scaled = math.sqrt(max(-2 * cumulant, 0.0)), s * math.sqrt(curvature)
    if root < 1e-4:  # next to the mean, where the formula is 0 / 0, the chance is about one half
        return 0.5
    density = math.exp(cumulant) / math.sqrt(2 * math.pi)
    return float(special.ndtr(-root)) + density * (1 / scaled - 1 / root)
