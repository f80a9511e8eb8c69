from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ecd_deploy.data.subsets import balanced_draws, balanced_subset, stratified_cut
from ecd_deploy.errors import DataError

LABELS = np.random.default_rng(1).permutation([0] * 50 + [1] * 30 + [2] * 20)


def counts(indices: NDArray[np.int64]) -> list[int]:
    return list(map(int, np.bincount(LABELS[indices], minlength=3)))


@pytest.mark.parametrize(("limit", "expected"), [(30, [10, 10, 10]), (70, [25, 25, 20]), (100, [50, 30, 20])])
def test_a_subset_takes_as_evenly_as_the_classes_allow(limit: int, expected: list[int]) -> None:
    chosen = balanced_subset(LABELS, limit, seed=0)
    assert counts(chosen) == expected
    assert chosen.tolist() == sorted(set(chosen.tolist()))


def test_what_does_not_divide_goes_to_classes_by_seed() -> None:
    extra = {tuple(counts(balanced_subset(LABELS, 4, seed=seed))) for seed in range(30)}
    assert extra == {(2, 1, 1), (1, 2, 1), (1, 1, 2)}


def test_no_limit_takes_all_and_a_seed_decides_which() -> None:
    assert balanced_subset(LABELS, None, seed=0).tolist() == list(range(100))
    assert balanced_subset(LABELS, 30, seed=0).tolist() == balanced_subset(LABELS, 30, seed=0).tolist()
    assert balanced_subset(LABELS, 30, seed=0).tolist() != balanced_subset(LABELS, 30, seed=1).tolist()


def test_a_cut_takes_each_class_in_proportion_and_loses_nothing() -> None:
    kept, cut = stratified_cut(LABELS, 0.1, seed=0)
    assert counts(cut) == [5, 3, 2]
    assert sorted(kept.tolist() + cut.tolist()) == list(range(100))
    assert cut.tolist() != stratified_cut(LABELS, 0.1, seed=1)[1].tolist()


@pytest.mark.parametrize("fraction", [0.07, 0.33, 0.5])
def test_a_cut_that_does_not_divide_stays_within_one_image_of_proportion(fraction: float) -> None:
    _, cut = stratified_cut(LABELS, fraction, seed=0)
    assert len(cut) == round(100 * fraction)
    for found, size in zip(counts(cut), (50, 30, 20), strict=True):
        assert abs(found - fraction * size) <= 1


def test_a_tiny_fraction_still_cuts_one_image() -> None:
    assert len(stratified_cut(LABELS, 0.001, seed=0)[1]) == 1


def test_a_cut_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="leaves none of the 3 training images"):
        stratified_cut(np.array([0, 1, 2]), 0.9, seed=0)
    with pytest.raises(DataError, match="every training image of class number"):
        stratified_cut(np.array([0, 1, 1, 1, 1]), 0.7, seed=0)


@pytest.mark.parametrize("sizes", [(50, 30, 20), (997, 2, 1), (7, 0, 4), (1, 1, 1), (5,)])
def test_balanced_draws_are_as_many_of_each_class_and_as_often_of_each_sample(sizes: tuple[int, ...]) -> None:
    total = sum(sizes)
    labels = np.random.default_rng(2).permutation(np.repeat(np.arange(len(sizes)), sizes))
    draws = balanced_draws(labels, seed=0, epoch=1)
    assert len(draws) == len(set(draws.tolist())) == total
    times = np.bincount(draws % total, minlength=total)
    for number, size in enumerate(sizes):
        of_class = times[labels == number]
        present = sum(map(bool, sizes))
        assert of_class.sum() in ({total // present, -(-total // present)} if size else {0})
        assert np.ptp(of_class) <= 1 if size else True
    for sample, count in enumerate(times.tolist()):
        assert sorted(draws[draws % total == sample] // total) == list(range(count))


def test_what_does_not_divide_goes_to_samples_and_classes_by_epoch() -> None:
    labels = np.repeat(np.arange(3), (60, 30, 13))
    epochs = 3000
    draws = np.concatenate([balanced_draws(labels, seed=5, epoch=epoch) for epoch in range(epochs)])
    often = np.bincount(draws % 103, minlength=103) / epochs
    expected = 103 / 3 / np.repeat((60, 30, 13), (60, 30, 13))
    # what is left to chance has a variance of at most 1 / 4, and of 2 / 9 for a class that gets one more of each three
    np.testing.assert_allclose(often, expected, atol=5 * np.sqrt(1 / 4 / epochs))
    np.testing.assert_allclose(np.bincount(labels, weights=often), 103 / 3, atol=5 * np.sqrt(2 / 9 / epochs))


def test_balanced_draws_hang_on_seed_and_epoch_alone() -> None:
    first = balanced_draws(LABELS, seed=0, epoch=1)
    assert first.tolist() == balanced_draws(LABELS, seed=0, epoch=1).tolist()
    assert first.tolist() != balanced_draws(LABELS, seed=0, epoch=2).tolist()
    assert first.tolist() != balanced_draws(LABELS, seed=1, epoch=1).tolist()
