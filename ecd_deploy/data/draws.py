"""Random draws that depend on a key and a counter only: splitmix64 on whole arrays and tensors.

A draw is a function of (seed, epoch, purpose, index), so it does not matter which process makes it,
in which order, or how often a run was resumed. Steele, Lea and Flood, "Fast splittable pseudorandom
number generators" (2014).
"""

from __future__ import annotations

from enum import IntEnum, unique
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Integers = TypeVar("Integers", "Tensor", NDArray[np.int64])
"""int64, of any shape."""

_GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)
_MASK = (1 << 64) - 1


@unique
class Purpose(IntEnum):
    """What a draw is for: each purpose has its own stream. Values are part of a run's meaning: only append."""

    ORDER = 1
    CROP_TOP = 2
    CROP_LEFT = 3
    FLIP = 4
    SUBSET = 5
    VALIDATION = 6
    STEP = 7
    RESIZED_CROP = 8
    SAMPLE = 9
    ROTATION = 10
    POLICY = 11
    JITTER = 12
    OWN_TRANSFORM = 13
    ERASING = 14
    MIXING = 15


def stream_key(seed: int, *parts: int) -> int:
    """Fold integers into the key of one stream of draws; the result is in [0, 2**64)."""
    key = _finish((seed + _GOLDEN_GAMMA) & _MASK)
    for part in parts:
        key = _finish(((key ^ (part & _MASK)) + _GOLDEN_GAMMA) & _MASK)
    return key


def draw_bits(key: int, counters: Integers) -> Integers:
    """Draw 64 random bits for each counter, the numbers that splitmix64 started at `key` yields.

    Args:
        key: from `stream_key`.
        counters: the positions in the stream.

    Returns:
        int64 of the same shape; all 64 bits are random, the sign too.
    """
    state = (counters + 1) * _signed(_GOLDEN_GAMMA) + _signed(key)
    state = (state ^ _shift_right(state, _SHIFTS[0])) * _signed(_MULTIPLIERS[0])
    state = (state ^ _shift_right(state, _SHIFTS[1])) * _signed(_MULTIPLIERS[1])
    return state ^ _shift_right(state, _SHIFTS[2])


def draw_below(key: int, counters: Integers, limit: int) -> Integers:
    """Draw integers in [0, limit), limit at most 2**31; their bias is below limit / 2**32."""
    return (_shift_right(draw_bits(key, counters), 32) * limit) >> 32


def draw_fraction(key: int, counters: NDArray[np.int64]) -> NDArray[np.float64]:
    """Draw float64 numbers in [0, 1), multiples of 2**-53."""
    return _shift_right(draw_bits(key, counters), 11).astype(np.float64) * 2.0**-53


def _finish(state: int) -> int:
    state = ((state ^ (state >> _SHIFTS[0])) * _MULTIPLIERS[0]) & _MASK
    state = ((state ^ (state >> _SHIFTS[1])) * _MULTIPLIERS[1]) & _MASK
    return state ^ (state >> _SHIFTS[2])


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _shift_right(values: Integers, places: int) -> Integers:
    # signed integers are shifted arithmetically: the copies of the sign bit are masked off
    return (values >> places) & ((1 << (64 - places)) - 1)
