"""Class-balanced subsets and the stratified cut of the validation split, by seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.data.draws import Purpose, draw_bits, stream_key
from ecd_deploy.errors import DataError


def balanced_subset(labels: NDArray[np.int64], limit: int | None, *, seed: int) -> NDArray[np.int64]:
    """Choose at most `limit` samples, as evenly over the classes as they allow.

    Args:
        labels: int64, (N,).
        limit: None takes all.
        seed: which samples of a class are taken, and which classes get one more.

    Returns:
        Rising indices, int64, (min(limit, N),).
    """
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    ranks, _ = _class_ranks(labels, seed, Purpose.SUBSET)
    return _first(ranks.astype(np.float64), labels, limit, seed, Purpose.SUBSET)


def stratified_cut(
    labels: NDArray[np.int64], fraction: float, *, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut `fraction` of the samples off, each class in proportion (Sainte-Laguë where it does not divide).

    Returns:
        Rising indices of what is kept and of what is cut off, int64; neither is empty.

    Raises:
        DataError: there are fewer than two samples, or the cut would take all of a class.
    """
    total = len(labels)
    count = max(1, round(fraction * total))
    if count >= total:
        raise DataError(
            f"a validation split of {fraction} leaves none of the {total} training images: "
            "add images or set data.validation_fraction lower"
        )
    ranks, sizes = _class_ranks(labels, seed, Purpose.VALIDATION)
    # in float32: in more digits, other classes would win where quotients tie, and the split of old runs change
    quotient: NDArray[np.float32] = np.divide(ranks + 0.5, sizes, dtype=np.float32, casting="same_kind")
    cut = _first(quotient, labels, count, seed, Purpose.VALIDATION)
    kept = np.setdiff1d(np.arange(total), cut, assume_unique=True)
    lost = sorted(set(labels.tolist()) - set(labels[kept].tolist()))
    if lost:
        raise DataError(
            f"a validation split of {fraction} takes every training image of class number {lost[0]}: "
            "add images or set data.validation_fraction lower"
        )
    return kept, cut


def _class_ranks(labels: NDArray[np.int64], seed: int, purpose: Purpose) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each sample's place in a random order of its class, and the size of its class; both (N,)."""
    draws = draw_bits(stream_key(seed, purpose), np.arange(len(labels)))
    by_draw = draws.argsort(stable=True)
    by_class = by_draw[labels[by_draw].argsort(stable=True)]
    sizes = np.bincount(labels)
    starts = sizes.cumsum() - sizes
    ranks = np.empty_like(labels)
    ranks[by_class] = np.arange(len(labels)) - starts[labels[by_class]]
    return ranks, sizes[labels]


def _first(
    priority: NDArray[np.floating], labels: NDArray[np.int64], count: int, seed: int, purpose: Purpose
) -> NDArray[np.int64]:
    """Rising indices of the `count` lowest priorities; ties go by a random order of the classes."""
    tie_break = draw_bits(stream_key(seed, purpose, 1), labels)
    order = tie_break.argsort(stable=True)
    order = order[priority[order].argsort(stable=True)]
    return np.sort(order[:count])
