"""Each distribution against scipy's, which the package does without."""

from __future__ import annotations

import math

import pytest
from scipy import optimize, special, stats

from ecd_deploy.measure.statistics.distributions import (
    beta_cdf,
    beta_quantile,
    binomial_cdf,
    binomial_quantile,
    normal_cdf,
    normal_quantile,
    root,
    t_quantile,
)

SHAPES = [
    (0.5, 0.5),
    (1, 1),
    (0.5, 40.0),
    (3.7, 2.2),
    (95, 6),
    (500, 501),
    (9_900, 101),
    (1, 1e6),
    (4e5, 7e6),
    (6e8, 1e3),
]
CHANCES = [1e-9, 0.001, 0.05, 0.4, 0.5, 0.95, 0.9999]


@pytest.mark.parametrize(("a", "b"), SHAPES)
@pytest.mark.parametrize("chance", CHANCES)
def test_the_beta_distribution(a: float, b: float, chance: float) -> None:
    quantile = beta_quantile(chance, a, b)
    # Logarithms of factorials of millions leave fewer digits.
    assert special.betainc(a, b, quantile) == pytest.approx(chance, rel=1e-10 + 1e-14 * (a + b))
    assert beta_cdf(quantile, a, b) == pytest.approx(chance, rel=1e-8)


def test_the_ends_of_the_beta_distribution() -> None:
    assert [beta_cdf(x, 2, 3) for x in (-1, 0, 1, 2)] == [0, 0, 1, 1]
    assert [beta_quantile(chance, 2, 3) for chance in (0, 1)] == [0, 1]
    assert beta_cdf(1e-200, 0.5, 3) == pytest.approx(special.betainc(0.5, 3, 1e-200), rel=1e-12)


@pytest.mark.parametrize("trials", [1, 5, 44, 459, 10_000])
@pytest.mark.parametrize("chance", [1e-6, 0.1, 0.5, 0.99])
def test_the_binomial_distribution(trials: int, chance: float) -> None:
    for successes in sorted({0, trials // 10, trials // 2, trials - 1, trials}):
        expected = special.bdtr(successes, trials, chance)
        assert binomial_cdf(successes, trials, chance) == pytest.approx(expected, rel=1e-9, abs=1e-300)
    for probability in (0.01, 0.5, 0.9, 0.95, 0.99):
        assert binomial_quantile(probability, trials, chance) == int(stats.binom.ppf(probability, trials, chance))


@pytest.mark.parametrize("z", [-37.0, -8.0, -1.6448536269514722, 0.0, 1e-9, 2.0, 9.0])
def test_the_normal_distribution(z: float) -> None:
    assert normal_cdf(z) == pytest.approx(special.ndtr(z), rel=1e-13)
    if z < 8:
        assert normal_quantile(normal_cdf(z)) == pytest.approx(z, abs=1e-7)


@pytest.mark.parametrize("degrees", [1.0, 1.7, 4.0, 30.0, 2e4])
@pytest.mark.parametrize("probability", [0.025, 0.5, 0.6, 0.95, 0.995])
def test_students_distribution(degrees: float, probability: float) -> None:
    expected = float(special.stdtrit(degrees, probability))
    assert t_quantile(probability, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_root_is_found_in_as_few_steps_as_by_brent() -> None:
    calls = []

    def flat(x: float) -> float:
        calls.append(x)
        return math.copysign(abs(x - 0.3) ** 3, x - 0.3) - 1e-3

    assert root(flat, 0.0, 5.0, 1e-12) == pytest.approx(optimize.brentq(flat, 0, 5, xtol=1e-12), abs=2e-12)
    assert len(calls) < 60
    assert root(lambda x: -math.inf if x > 0.25 else 1.0, 0, 1) == pytest.approx(0.25, abs=1e-15)
    assert root(lambda x: x, 0.0, 1.0) == 0.0
    with pytest.raises(ValueError, match="between 1 and 2"):
        root(lambda x: x, 1, 2)
