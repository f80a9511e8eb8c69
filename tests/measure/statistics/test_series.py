from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from ecd_deploy.measure.statistics.series import effective_samples, median_bounds


def process(generator: np.random.Generator, count: int, memory: float) -> NDArray[np.float64]:
    values = generator.standard_normal(count)
    for index in range(1, count):
        values[index] = memory * values[index - 1] + math.sqrt(1 - memory**2) * values[index]
    return values


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.8])
def test_effective_samples_are_those_of_the_median(memory: float) -> None:
    generator = np.random.default_rng(5)
    series = [process(generator, 400, memory) for _ in range(400)]
    # The variance of a median of n independent normal samples is pi / 2n: solved for n, it is the definition.
    truth = math.pi / 2 / float(np.var([np.median(entry) for entry in series]))
    assert np.median([effective_samples(entry.tolist()) for entry in series]) == pytest.approx(truth, rel=0.2)


def test_bounds_of_independent_samples_are_those_of_the_sign_test() -> None:
    generator = np.random.default_rng(1)
    for count in (20, 40, 200):
        exact = int(stats.binom.ppf(0.95, count, 0.5)) + 1
        uppers = [median_bounds(generator.permutation(count).tolist(), 0.95)[1] for _ in range(200)]
        ranks = [int(upper) + 1 for upper in uppers if math.isfinite(upper)]
        assert exact <= min(ranks)
        assert np.median(ranks) <= exact + 1 + count // 40


@pytest.mark.parametrize(("memory", "most"), [(0.0, 0.06), (0.5, 0.065), (0.7, 0.075)])
def test_bounds_err_no_more_than_they_say_whatever_the_memory(memory: float, most: float) -> None:
    generator = np.random.default_rng(3)
    bounds = [median_bounds(process(generator, 40, memory).tolist(), 0.95) for _ in range(1_000)]
    assert np.mean([upper < 0 for _, upper in bounds]) <= most
    assert np.mean([lower > 0 for lower, _ in bounds]) <= most


def test_order_matters_and_equal_samples_are_no_memory() -> None:
    shuffled = np.random.default_rng(2).permutation(100).tolist()
    assert effective_samples(sorted(shuffled)) < 10 < effective_samples(shuffled)
    assert effective_samples([1.0] * 40) == 40
    assert median_bounds([1.0] * 40, 0.95) == (1.0, 1.0)


def test_too_few_samples_bound_nothing() -> None:
    assert median_bounds([1.0, 2.0, 3.0], 0.95) == (-math.inf, math.inf)
    assert median_bounds([], 0.95) == (-math.inf, math.inf)
