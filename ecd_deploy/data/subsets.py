"""Class-balanced subsets and draws, and the stratified cut of the validation split, by seed."""

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
    ranks, _ = _class_ranks(labels, stream_key(seed, Purpose.SUBSET))
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
    ranks, sizes = _class_ranks(labels, stream_key(seed, Purpose.VALIDATION))
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


def balanced_draws(labels: NDArray[np.int64], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Draw as many samples as there are, equally many of each class, and those of a class equally often, but for one.

    Args:
        labels: int64, (N,).
        seed: which classes and samples are drawn once more than others.
        epoch: likewise; counted from 1.

    Returns:
        Of each draw the sample's index + N x how often it was drawn before, int64, (N,), in rising order.
    """
    total = len(labels)
    key = stream_key(seed, epoch, Purpose.SAMPLE)
    ranks, sizes = _class_ranks(labels, key)
    present, numbers = np.unique(labels, return_inverse=True)
    quotas = np.full(len(present), total // len(present))
    quotas[draw_bits(stream_key(key, 1), present).argsort(stable=True)[: total % len(present)]] += 1
    whole, rest = np.divmod(quotas[numbers], sizes)
    times = whole + (ranks < rest)
    indices = np.repeat(np.arange(total), times)
    before = np.arange(total) - (times.cumsum() - times)[indices]
    draws: NDArray[np.int64] = indices + total * before
    return draws


def _class_ranks(labels: NDArray[np.int64], key: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each sample's place in a random order of its class, and the size of its class; both (N,)."""
    draws = draw_bits(key, np.arange(len(labels)))
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
