"""Class-balanced subsets and the stratified cut of the validation split, by seed."""

from __future__ import annotations

import torch
from torch import Tensor

from ecd_deploy.data.draws import Purpose, draw_bits, stream_key
from ecd_deploy.errors import DataError


def balanced_subset(labels: Tensor, limit: int | None, *, seed: int) -> Tensor:
    """Choose at most `limit` samples, as evenly over the classes as they allow.

    Args:
        labels: int64, (N,).
        limit: None takes all.
        seed: which samples of a class are taken, and which classes get one more.

    Returns:
        Rising indices, int64, (min(limit, N),).
    """
    if limit is None or limit >= len(labels):
        return torch.arange(len(labels))
    ranks, _ = _class_ranks(labels, seed, Purpose.SUBSET)
    return _first(ranks.to(torch.float64), labels, limit, seed, Purpose.SUBSET)


def stratified_cut(labels: Tensor, fraction: float, *, seed: int) -> tuple[Tensor, Tensor]:
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
    quotient = (ranks + 0.5) / sizes
    cut = _first(quotient, labels, count, seed, Purpose.VALIDATION)
    is_kept = torch.ones(total, dtype=torch.bool)
    is_kept[cut] = False
    kept = is_kept.nonzero().flatten()
    lost = sorted(set(labels.tolist()) - set(labels[kept].tolist()))
    if lost:
        raise DataError(
            f"a validation split of {fraction} takes every training image of class number {lost[0]}: "
            "add images or set data.validation_fraction lower"
        )
    return kept, cut


def _class_ranks(labels: Tensor, seed: int, purpose: Purpose) -> tuple[Tensor, Tensor]:
    """Each sample's place in a random order of its class, and the size of its class; both (N,)."""
    draws = draw_bits(stream_key(seed, purpose), torch.arange(len(labels)))
    by_draw = draws.argsort(stable=True)
    by_class = by_draw[labels[by_draw].argsort(stable=True)]
    sizes = torch.bincount(labels)
    starts = sizes.cumsum(0) - sizes
    ranks = torch.empty_like(labels)
    ranks[by_class] = torch.arange(len(labels)) - starts[labels[by_class]]
    return ranks, sizes[labels]


def _first(priority: Tensor, labels: Tensor, count: int, seed: int, purpose: Purpose) -> Tensor:
    """Rising indices of the `count` lowest priorities; ties go by a random order of the classes."""
    tie_break = draw_bits(stream_key(seed, purpose, 1), labels)
    order = tie_break.argsort(stable=True)
    order = order[priority[order].argsort(stable=True)]
    return order[:count].sort().values
