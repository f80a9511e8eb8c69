"""Bounds on an average of proportions of different groups of images: balanced accuracy, and its drop."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ecd_deploy.measure.statistics.proportions import accuracy_lower_bound, drop_upper_bound


def average_lower_bound(correct: Sequence[float], images: Sequence[float], confidence: float) -> float:
    """One-sided lower confidence bound on the plain average of accuracies of independent groups: the lesser of two.

    One adds the distances of the groups' own bounds (Clopper and Pearson 1934) from their estimates in squares (MOVER:
    Zou, Huang and Zhang 2009). It alone errs too often at low accuracies, where the distances are too short together.

    The other is that of Clopper and Pearson on the average, of as many images as the correct ones are worth by their
    weights (Fay and Feuer 1997, with a binomial in place of a Poisson). For groups of one size these are all images,
    and accuracies that differ only make it err less often (Hoeffding 1956); for other groups it is an approximation.

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
    if average == 0:
        return 0.0
    worth = len(groups) * average * len(groups) / sum(right / total**2 for right, total in groups)
    pooled = accuracy_lower_bound(min(average, 1.0) * worth, worth, confidence)
    return max(min(average - math.hypot(*distances) / len(groups), pooled), 0.0)


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
