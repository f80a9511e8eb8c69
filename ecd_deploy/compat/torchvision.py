"""Interfaces of torchvision that are private; the function names the one that it rests on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torchvision.transforms import v2

_BINS = 31  # both policies' default number of magnitudes


@dataclass(frozen=True)
class OperationRange:
    """An operation of an augmentation policy.

    Attributes:
        name: torchvision's, such as "ShearX".
        strengths: float64, (31,), by magnitude; zeros if the operation has none.
        is_signed: whether a strength is negated with probability one half.
    """

    name: str
    strengths: NDArray[np.float64]
    is_signed: bool


def policy_operations(
    policy: type[v2.RandAugment | v2.TrivialAugmentWide], height: int, width: int
) -> tuple[OperationRange, ...]:
    """What a policy chooses from, for images of a size: `_AUGMENTATION_SPACE` of both classes."""
    return tuple(
        OperationRange(
            name,
            np.zeros(_BINS) if (found := strengths(_BINS, height, width)) is None else found.double().numpy(),
            is_signed,
        )
        for name, (strengths, is_signed) in policy._AUGMENTATION_SPACE.items()
    )
