"""Bounds on an average of proportions of different groups of images: balanced accuracy, and its drop."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ecd_deploy.measure.statistics.proportions import accuracy_lower_bound, drop_upper_bound


def average_lower_bound(correct: Sequence[float], images: Sequence[float], confidence: float) -> float:
    """One-sided lower confidence bound on the plain average of accuracies of independent groups.

    The distances of the groups' own bounds from their estimates are added in squares (MOVER: Zou, Huang and Zhang
    2009, on linear functions of binomial proportions). The groups' bounds are those of Clopper and Pearson, which are
    wider than the score bounds of that paper, so that few images or accuracies near 1 do not make it err more often.

    Args:
        correct: images classified correctly, of each group.
        images: in each group, at least one.
        confidence: for example 0.95.

    Raises:
        ValueError: a group without images, or no group.
    """
    groups = list(zip(correct, images, strict=True))
    if not groups:
        raise ValueError("no groups of images")
    distances = (right / total - accuracy_lower_bound(right, total, confidence) for right, total in groups)
    average = sum(right / total for right, total in groups) / len(groups)
    return max(average - math.hypot(*distances) / len(groups), 0.0)


def average_drop_upper_bound(
    lost: Sequence[float], gained: Sequence[float], images: Sequence[float], confidence: float
) -> float:
    """One-sided upper confidence bound on the plain average of the paired drops of independent groups.

    As `average_lower_bound`, from the groups' score bounds (Tango 1998).

    Args:
        lost: images that only the reference classifies correctly, of each group.
        gained: images that only the candidate classifies correctly, of each group.
        images: in each group, at least one.
        confidence: for example 0.95.

    Raises:
        ValueError: a group without images, or no group.
    """
    groups = list(zip(lost, gained, images, strict=True))
    if not groups:
        raise ValueError("no groups of images")
    drops = [(out - into) / total for out, into, total in groups]
    bounds = (drop_upper_bound(out, into, total, confidence) for out, into, total in groups)
    distances = (bound - drop for bound, drop in zip(bounds, drops, strict=True))
    return min(sum(drops) / len(groups) + math.hypot(*distances) / len(groups), 1.0)
