"""The distributions behind the bounds, in plain Python.

`scipy` knows them too, but is a third of the size of an installation, and takes longer to load than a gate takes to
decide. The tests compare each function with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist

_NORMAL = NormalDist()
_EPSILON = 2.0**-52
_LEAST = 1e-300
_MOST_TERMS = 10_000


def normal_cdf(z: float) -> float:
    """The chance that a standard normal variable is at most `z`."""
    return math.erfc(-z / math.sqrt(2)) / 2


def normal_quantile(probability: float) -> float:
    """What a standard normal variable does not exceed with this probability, strictly between 0 and 1."""
    return _NORMAL.inv_cdf(probability)


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (DLMF 8.17.22), a and b above 0."""
    if not 0 < x < 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _beta_tail(1 - x, b, a)
    return _beta_tail(x, a, b)


def _beta_tail(x: float, a: float, b: float) -> float:
    """The same below the mean, where the fraction converges within about the root of the larger of a and b."""
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    numerator, denominator = 1.0, 1.0 / _not_zero(1 - (a + b) * x / (a + 1))
    fraction = denominator
    for term in range(1, _MOST_TERMS):
        even = term * (b - term) * x / ((a + 2 * term - 1) * (a + 2 * term))
        odd = -(a + term) * (a + b + term) * x / ((a + 2 * term) * (a + 2 * term + 1))
        for part in (even, odd):  # the method of Lentz (1976)
            denominator = 1 / _not_zero(1 + part * denominator)
            numerator = _not_zero(1 + part / numerator)
            fraction *= numerator * denominator
        if abs(numerator * denominator - 1) < _EPSILON:
            break
    return math.exp(front) * fraction / a


def _not_zero(value: float) -> float:
    return value if abs(value) > _LEAST else _LEAST


@lru_cache(maxsize=4096)  # classes and simulations have the same counts again and again
def beta_quantile(probability: float, a: float, b: float) -> float:
    """What a beta-distributed share does not exceed with this probability."""

    def excess(x: float) -> float:
        # On the scale of the normal distribution it is almost a straight line, and found in a few steps.
        reached = min(max(beta_cdf(x, a, b), _LEAST), 1 - _EPSILON)
        return _NORMAL.inv_cdf(reached) - wanted

    if not 0 < probability < 1:
        return float(probability)
    wanted = _NORMAL.inv_cdf(probability)
    return root(excess, 0.0, 1.0)


def binomial_cdf(successes: int, trials: int, chance: float) -> float:
    """The chance of at most so many successes."""
    return 1.0 if successes >= trials else beta_cdf(1 - chance, trials - successes, successes + 1)


def binomial_quantile(probability: float, trials: int, chance: float) -> int:
    """The least number of successes that is not exceeded with at least this probability."""
    low, high = -1, trials
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if binomial_cdf(middle, trials, chance) >= probability else (middle, high)
    return high


def t_quantile(probability: float, degrees: float) -> float:
    """What a variable of Student's t distribution does not exceed with this probability."""
    share = beta_quantile(abs(2 * probability - 1), 0.5, degrees / 2)
    return math.copysign(math.sqrt(degrees * share / (1 - share)), probability - 0.5)


def root(function: Callable[[float], float], low: float, high: float, tolerance: float = 0.0) -> float:
    """Where a function crosses zero between two places (Chandrupatla 1997): by inverse quadratic steps or halving.

    Args:
        function: continuous, of different signs at `low` and `high`.
        low: one end.
        high: the other end.
        tolerance: how close is close enough; at least a few last bits.

    Raises:
        ValueError: the signs are the same.
    """
    a, b, at_a, at_b = low, high, function(low), function(high)
    if at_a * at_b > 0:
        raise ValueError(f"no root is known to lie between {low} and {high}")
    step = 0.5
    while True:
        x = a + step * (b - a)
        at_x = function(x)
        if (at_x > 0) == (at_a > 0):
            c, at_c = a, at_a
        else:
            c, at_c, b, at_b = b, at_b, a, at_a
        a, at_a = x, at_x
        best, at_best = (a, at_a) if abs(at_a) < abs(at_b) else (b, at_b)
        least = (2 * _EPSILON * abs(best) + tolerance / 2) / abs(b - a) if a != b else 1.0
        if at_best == 0 or least > 0.5:
            return best
        place, height = (a - b) / (c - b), (at_a - at_b) / (at_c - at_b) if at_c != at_b else math.nan
        step = 0.5
        if height**2 < place and (1 - height) ** 2 < 1 - place:
            step = at_a / (at_b - at_a) * at_c / (at_b - at_c)
            step += (c - a) / (b - a) * at_a / (at_c - at_a) * at_b / (at_c - at_b)
        step = min(max(step, least), 1 - least)
