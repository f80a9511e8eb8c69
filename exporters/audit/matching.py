"""Which of the student's tensors a tensor of a file comes from.

The bounds: a fold is within 16 float32 roundings of its float64 recomputation, each measured against the terms
that were added; an expression within 256 of the largest element; float16 within half a unit of its 11 bits;
integers within half a step, and one part in a thousand for the rounding of the scale.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.exporters.audit.results import Origin
from ecd_deploy.exporters.audit.sources import Source, StudentSources
from ecd_deploy.exporters.files.contents import Affine, FileTensor
from ecd_deploy.files import sha256_bytes

_ROUNDING = 2.0**-24
_FOLD_ROUNDINGS = 16
_EXPRESSION_ROUNDINGS = 256
_HALF = 2.0**-11
_HALF_FLOOR = 1.2e-7  # onnxruntime's converter lifts smaller weights to float16's least
_STEP = 0.5 + 1e-3
_MOST_INTEGERS = 64
_ONE_NUMBER = 8  # bytes of a float64 or an int64
_LARGEST_INDEX = 2**20
_MOST_PERMUTED_DIMENSIONS = 5
_LEAST_STEPS, _MOST_STEPS = 28.0, 256.0


class Match(NamedTuple):
    """Where a tensor comes from; `error` is its deviation as a share of the bound."""

    origin: Origin
    source: str | None = None
    error: float | None = None
    values: NDArray[np.float64] | None = None


def match(tensor: FileTensor, sources: StudentSources) -> Match | None:
    """Find the source of a tensor; None if it has none."""
    array = tensor.array
    if tensor.affine is not None:
        return _nearest(_quantised(array.astype(np.float64), tensor.affine, sources))
    content = array.tobytes() if tensor.raw is None else tensor.raw
    if (name := sources.by_digest.get(sha256_bytes(content))) is not None:
        return Match(Origin.EQUAL, name)
    candidates = sources.by_size.get(array.size, ())
    if (name := _transposed_name(array, candidates)) is not None:
        return Match(Origin.EQUAL, name)
    if _is_structure(array, tensor.raw):
        return Match(Origin.STRUCTURE)
    if array.dtype not in (np.float32, np.float16, np.float64):
        return None
    best = _nearest(_within(array.astype(np.float64), array.dtype == np.float16, candidates))
    if best is None and tensor.role == "blocked":
        best = _nearest(_reordered(array.astype(np.float64), sources))
    return best


def is_constant(array: NDArray[Any]) -> bool:
    """Whether all elements are the same."""
    return bool((array.reshape(-1)[:1] == array).all())


def scale_fits(scale: NDArray[Any], values: NDArray[np.float64], axis: int) -> bool:
    """Whether the scales of a quantised tensor spread its values, channel by channel, over the integers."""
    flat = np.moveaxis(np.abs(values), axis, 0).reshape(values.shape[axis], -1).max(axis=1)
    largest = flat if scale.size > 1 else flat.max(keepdims=True)
    steps = largest / np.maximum(scale.astype(np.float64).reshape(-1), 1e-30)
    # A channel of zeros may have any scale.
    return bool(((steps <= _MOST_STEPS / 2) & ((steps >= _LEAST_STEPS) | (largest < 1e-6))).all())


def _transposed_name(array: NDArray[Any], candidates: tuple[Source, ...]) -> str | None:
    ordered, content = np.sort(array, axis=None).tobytes(), array.tobytes()
    for source in candidates:
        if source.exact is None or source.exact.dtype != array.dtype or _ordered(source).tobytes() != ordered:
            continue
        if any(view.tobytes() == content for view in _permuted(source.exact)):
            return source.name
    return None


@lru_cache(maxsize=4096)
def _ordered(source: Source) -> NDArray[Any]:
    return np.sort(source.value if source.exact is None else source.exact, axis=None)


@lru_cache(maxsize=4096)
def _ordered_values(source: Source) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.sort(source.value, axis=None)
    filled: NDArray[np.float64] = values[values != 0]
    return filled


def _permuted(exact: NDArray[Any]) -> Iterator[NDArray[Any]]:
    squeezed = exact.squeeze()
    if 1 < squeezed.ndim <= _MOST_PERMUTED_DIMENSIONS:
        for order in itertools.permutations(range(squeezed.ndim)):
            yield squeezed.transpose(order)


def _is_structure(array: NDArray[Any], raw: bytes | None) -> bool:
    if array.size <= 1 or is_constant(array):
        return True
    if raw is not None and len(raw) <= _ONE_NUMBER:
        return True
    if raw is not None and len(raw) % 8 == 0 and len(raw) <= 8 * _MOST_INTEGERS:
        integers = np.frombuffer(raw, dtype="<i8")
        return bool((np.abs(integers) < 2**31).all())
    if array.size > _LARGEST_INDEX or not _is_integral(array):
        return False
    return _numbers_needed(array.astype(np.int64), _MOST_INTEGERS) <= _MOST_INTEGERS


def _is_integral(array: NDArray[Any]) -> bool:
    if array.dtype in (np.int64, np.int32, np.bool_):
        return True
    # The counts of an adaptive pooling, for example, are written as floats.
    if array.dtype not in (np.float16, np.float32, np.float64):
        return False
    wide = array.astype(np.float64)
    return bool(((wide == np.rint(wide)) & (np.abs(wide) < 2**24)).all())


def _numbers_needed(integers: NDArray[np.int64], most: int) -> int:
    """How many numbers say what an index tensor holds; counting ends above `most`.

    What is repeated along an axis is one, a range two; sums over axes need what their terms do, and all else what its
    slices do.
    """
    for axis in range(integers.ndim):
        first = integers.take([0], axis)
        if bool((integers == first).all()):
            integers = first
    integers = integers.squeeze()
    if integers.ndim <= 1:
        is_range = integers.size > 2 and np.unique(np.diff(integers)).size == 1
        return 2 if is_range else integers.size
    origin = integers.reshape(-1)[0]
    axes = range(integers.ndim)
    terms = [integers[tuple(slice(None) if other == axis else 0 for other in axes)] for axis in axes]
    if bool((sum(np.ix_(*(term - origin for term in terms)), origin) == integers).all()):
        return sum(_numbers_needed(term, most) for term in terms)
    smallest = [axis for axis in axes if integers.shape[axis] == min(integers.shape)]
    return min(_numbers_of_slices(integers, axis, most) for axis in smallest)


def _numbers_of_slices(integers: NDArray[np.int64], axis: int, most: int) -> int:
    total = 0
    for part in np.moveaxis(integers, axis, 0):
        total += _numbers_needed(part, most)
        if total > most:
            break
    return total


def _nearest(matches: Iterator[Match]) -> Match | None:
    return min(matches, key=lambda found: found.error or 0.0, default=None)


def _within(array: NDArray[np.float64], half: bool, candidates: tuple[Source, ...]) -> Iterator[Match]:
    total = array.sum()
    for source in candidates:
        bound = _bound(source, half)
        # The order does not change the sum: most candidates end here, before any is transposed.
        if not abs(total - source.value.sum()) <= bound.sum() * 1.01:
            continue
        views = itertools.chain([(source.value, bound)], zip(_permuted(source.value), _permuted(bound), strict=True))
        for value, limit in views:
            error = _excess(array.reshape(-1), value.reshape(-1), limit.reshape(-1))
            if error <= 1:
                yield Match(Origin.CAST if half else Origin.FOLDED, source.name, error)
                break


def _bound(source: Source, half: bool) -> NDArray[np.float64]:
    roundings = _FOLD_ROUNDINGS if source.exact is None else _EXPRESSION_ROUNDINGS
    bound = roundings * _ROUNDING * source.magnitude + 1e-37
    return bound + _HALF * 1.01 * np.abs(source.value) + _HALF_FLOOR if half else bound


def _excess(found: NDArray[np.float64], value: NDArray[np.float64], bound: NDArray[np.float64]) -> float:
    with np.errstate(all="ignore"):
        excess = np.abs(found - value) / bound
    return float(excess.max(initial=0.0)) if np.isfinite(excess).all() else float("inf")


def _reordered(array: NDArray[np.float64], sources: StudentSources) -> Iterator[Match]:
    """In a blocked layout channels are padded with zeros to the width of the vectors; nothing else is changed."""
    ordered = np.sort(array, axis=None)
    filled = ordered[ordered != 0]
    for source in sources.sources:
        if source.value.size > array.size:
            continue
        values = _ordered_values(source)
        if values.size != filled.size:
            continue
        bound = _FOLD_ROUNDINGS * _ROUNDING * float(source.magnitude.max(initial=0.0)) + 1e-37
        error = _excess(filled, values, np.full_like(values, bound))
        if error <= 1:
            yield Match(Origin.REORDERED, source.name, error)


def _quantised(array: NDArray[np.float64], affine: Affine, sources: StudentSources) -> Iterator[Match]:
    shape = [1] * array.ndim
    if affine.scale.size > 1:
        shape[affine.axis if array.ndim > 1 else 0] = affine.scale.size
    scale, zero = affine.scale.reshape(shape), affine.zero.reshape(shape if affine.zero.size > 1 else [1] * array.ndim)
    values = (array - zero) * scale
    step = np.broadcast_to(_STEP * scale, array.shape)
    for source in sources.by_size.get(array.size, ()):
        for value in (source.value, *_permuted(source.value)):
            wide = value.reshape(array.shape)
            error = _excess(values, wide, step + _bound(source, half=False).max(initial=0.0))
            if error <= 1:
                yield Match(Origin.QUANTISED, source.name, error, wide)
            if value.shape == array.shape:
                break
