from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar

from ecd_deploy.measure.device.runner.percentiles import _binomial_quantile, samples_needed
from ecd_deploy.measure.statistics import (
    Count,
    accuracy_lower_bound,
    average_drop_upper_bound,
    average_lower_bound,
    drop_upper_bound,
    mcnemar_p_value,
    mean_upper_bound,
    percentile,
    percentile_upper_bound,
    shown_above,
    shown_below,
    unpaired_drop_upper_bound,
)


@pytest.mark.parametrize(("correct", "total"), [(1, 10), (485, 500), (9_900, 10_000), (500, 500)])
def test_accuracy_bound_inverts_the_binomial_test(correct: int, total: int) -> None:
    bound = accuracy_lower_bound(correct, total, 0.95)
    # At the bound, seeing at least this many correct has probability 5 %: the definition of Clopper-Pearson.
    assert stats.binom.sf(correct - 1, total, bound) == pytest.approx(0.05, rel=1e-6)


def test_accuracy_bound_of_no_hit_is_zero() -> None:
    assert accuracy_lower_bound(0, 50, 0.95) == 0.0


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (3, 2), (-1, 5)])
def test_impossible_counts_are_refused(correct: int, total: int) -> None:
    with pytest.raises(ValueError, match="images"):
        accuracy_lower_bound(correct, total, 0.95)


def score_by_numerical_likelihood(lost: int, gained: int, total: int, drop: float) -> float:
    """Tango's statistic with the nuisance parameter found by a numerical search instead of the closed form."""
    same = total - lost - gained

    def negative_log_likelihood(gain: float) -> float:
        cells = [(lost, gain + drop), (gained, gain), (same, 1 - 2 * gain - drop)]
        if any(probability <= 0 and count for count, probability in cells):
            return math.inf
        return -sum(count * math.log(probability) for count, probability in cells if count)

    low, high = max(0.0, -drop) + 1e-12, (1 - drop) / 2 - 1e-12
    gain = minimize_scalar(negative_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (lost - gained - total * drop) / math.sqrt(total * (2 * gain + drop * (1 - drop)))


@pytest.mark.parametrize(("lost", "gained", "total"), [(3, 1, 500), (12, 9, 1_000), (1, 8, 300), (40, 40, 10_000)])
def test_drop_bound_solves_the_score_equation(lost: int, gained: int, total: int) -> None:
    bound = drop_upper_bound(lost, gained, total, 0.95)
    assert bound > (lost - gained) / total
    assert score_by_numerical_likelihood(lost, gained, total, bound) == pytest.approx(-1.6448536, abs=1e-3)


def test_drop_bound_without_any_difference_shrinks_with_images() -> None:
    assert drop_upper_bound(0, 0, 500, 0.95) == pytest.approx(1 - 0.05 ** (1 / 500), abs=1e-8)
    assert drop_upper_bound(0, 0, 10_000, 0.95) < 0.0003


@pytest.mark.parametrize(("total", "drop"), [(20, 0.2), (25, 0.1), (52, 0.05), (268, 0.01), (500, 0.02)])
@pytest.mark.parametrize("gain", [0.0, 0.0005, 0.002, 0.005])
def test_drop_bound_of_a_candidate_that_hardly_gains(total: int, drop: float, gain: float) -> None:
    """The exact chance of a bound below the true drop, of all counts."""
    cells, most = [drop + gain, gain, 1 - drop - 2 * gain], 1e-6
    errs = 0.0
    for lost in range(int(stats.binom.isf(most, total, cells[0])) + 1):
        for gained in range(int(stats.binom.isf(most, total, gain)) + 1 if gain else 1):
            if lost + gained <= total and drop_upper_bound(lost, gained, total, 0.95) < drop:
                errs += stats.multinomial.pmf([lost, gained, total - lost - gained], total, cells)
    assert errs <= 0.05


def test_drop_bound_covers_at_its_confidence() -> None:
    generator = np.random.default_rng(7)
    drop, gain, total, trials = 0.01, 0.02, 2_000, 2_000
    cells = generator.multinomial(total, [gain + drop, gain, 1 - 2 * gain - drop], size=trials)
    covered = np.mean([drop_upper_bound(int(lost), int(gained), total, 0.95) >= drop for lost, gained, _ in cells])
    assert covered == pytest.approx(0.95, abs=0.015)


def test_all_lost_is_a_drop_of_one() -> None:
    assert drop_upper_bound(20, 0, 20, 0.95) == 1.0


def test_sample_counts_are_those_of_loadgen() -> None:
    assert samples_needed(0.9) == 44
    assert samples_needed(0.99) == 459
    assert samples_needed(0.95, confidence=0.95) == 59


def test_percentile_is_the_nearest_rank() -> None:
    samples = list(range(1, 101))
    assert percentile(samples, 0.9) == 90
    assert percentile(samples, 0.99) == 99
    assert percentile([5.0], 0.5) == 5.0
    assert percentile(samples, 0.0) == 1


def test_percentile_bound_needs_enough_samples() -> None:
    assert percentile_upper_bound(list(range(43)), 0.9) is None
    assert percentile_upper_bound(list(range(44)), 0.9) == 43


def test_percentile_bound_covers_at_its_confidence() -> None:
    generator = np.random.default_rng(3)
    truth = stats.expon.ppf(0.9)
    bounds = [percentile_upper_bound(list(generator.exponential(size=120)), 0.9) for _ in range(2_000)]
    covered = np.mean([bound is not None and bound >= truth for bound in bounds])
    assert covered >= 0.985


@pytest.mark.parametrize(("lost", "gained"), [(0, 1), (3, 1), (5, 5), (0, 12), (40, 61)])
def test_mcnemar_is_the_binomial_test(lost: int, gained: int) -> None:
    expected = stats.binomtest(lost, lost + gained, 0.5).pvalue
    assert mcnemar_p_value(lost, gained) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_ranks_are_the_quantiles_of_a_binomial(confidence: float) -> None:
    for count in (5, 44, 459, 1_000):
        for fraction in (0.5, 0.9, 0.99):
            assert _binomial_quantile(count, fraction, confidence) == int(stats.binom.ppf(confidence, count, fraction))


@pytest.mark.parametrize(("wrong", "total"), [(0, 20), (1, 20), (10, 20), (3, 500), (0, 5), (250, 500)])
def test_mean_bound_of_zeros_and_ones_is_that_of_clopper_and_pearson(wrong: int, total: int) -> None:
    values = np.zeros(total)
    values[:wrong] = 1.0
    exact = stats.beta.ppf(0.95, wrong + 1, total - wrong)
    found = mean_upper_bound(values, 1.0, 0.95)
    assert exact <= found + 1e-4
    assert found == pytest.approx(exact, rel=0.006)


def test_mean_bound_is_a_quantile_under_random_weights() -> None:
    generator = np.random.default_rng(0)
    values = generator.exponential(0.1, size=200).clip(0, 2)
    weights = generator.dirichlet(np.ones(201), size=50_000)
    expected = np.quantile(weights @ np.append(values, 2.0), 0.95)
    assert mean_upper_bound(values, 2.0, 0.95) == pytest.approx(expected, rel=0.005)


def test_mean_bound_of_more_such_values_is_that_of_the_values_repeated() -> None:
    values = np.random.default_rng(1).beta(0.3, 2.0, size=60)
    assert mean_upper_bound(values, 1.0, 0.95, 5.0) == pytest.approx(mean_upper_bound(np.tile(values, 5), 1.0, 0.95))


def test_mean_bound_of_values_at_their_largest_or_beyond() -> None:
    assert mean_upper_bound(np.ones(5), 1.0, 0.95) == 1.0
    for values in (np.zeros(0), np.array([1.5])):
        with pytest.raises(ValueError, match=r"decides nothing|exceeds"):
            mean_upper_bound(values, 1.0, 0.95)


def test_average_of_one_group_has_the_bound_of_that_group() -> None:
    assert average_lower_bound([45], [50], 0.95) == pytest.approx(accuracy_lower_bound(45, 50, 0.95))
    assert average_drop_upper_bound([3], [1], [50], 0.95) == pytest.approx(drop_upper_bound(3, 1, 50, 0.95))


def test_average_bound_of_many_alike_groups_is_near_the_normal_one() -> None:
    error = math.sqrt(0.9 * 0.1 / 100_000)
    assert average_lower_bound([9_000] * 10, [10_000] * 10, 0.95) == pytest.approx(0.9 - 1.645 * error, abs=1e-4)
    assert average_lower_bound([0, 0], [5, 5], 0.95) == 0.0


@pytest.mark.parametrize(
    ("accuracies", "images"),
    [
        ([0.3] * 100, [1] * 100),
        ([0.1] * 100, [10] * 100),
        ([0.05] * 10, [10] * 10),
        (np.linspace(0.02, 0.3, 100).tolist(), [10] * 100),
        ([0.2] * 100, [2] * 50 + [20] * 50),
        ([0.1] * 50 + [0.01] * 50, [10] * 50 + [100] * 50),
        (np.linspace(0.15, 0.05, 20).tolist(), [5, 14, 38, 107, 299] * 4),
    ],
)
def test_average_bound_covers_low_accuracies(accuracies: list[float], images: list[int]) -> None:
    """Squares alone err in 8 to 13 % here."""
    correct = np.random.default_rng(5).binomial(images, accuracies, (800, len(images)))
    bounds = [average_lower_bound(row, images, 0.95) for row in correct.tolist()]
    assert np.mean(np.array(bounds) > np.mean(accuracies)) < 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / 800)


def test_unpaired_bound_is_wider_than_the_normal_one_and_close_to_it() -> None:
    bound = unpaired_drop_upper_bound(Count(900, 1_000), Count(880, 1_000), 0.95)
    normal = 0.02 + 1.645 * math.sqrt(0.9 * 0.1 / 1_000 + 0.88 * 0.12 / 1_000)
    assert normal < bound < normal + 0.002


def test_holm_names_those_that_miss_and_counts_errors_together() -> None:
    assert shown_below([0, 9, 5], [10, 10, 10], 0.9, 0.95) == [0, 2]
    assert shown_below([17], [20], 0.96, 0.95) == [0]
    assert shown_below([17] + [20] * 9, [20] * 10, 0.96, 0.95) == []  # one of ten is so low by chance
    assert shown_above([9, 1, 0], [0, 1, 3], [20, 20, 20], 0.05, 0.95) == [0]
