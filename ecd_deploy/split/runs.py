"""Runs of numbers that two sets of tensors have in common, whatever tensor, data type or place they stand in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ecd_deploy.split.inventory import NamedTensor


class _Row(NamedTuple):
    """Numbers in a row that are no coincidence: how many, and how many last places apart.

    Those that are closer share their upper bits: the variances of channels that hardly ever fire, for example.
    """

    numbers: int
    spread: int


_ROWS = {torch.float32: _Row(4, 2**12), torch.float16: _Row(6, 2**5), torch.bfloat16: _Row(7, 2**3)}
_TABLE_BITS = 27
_SHORT = 8
_TINY = 2.0**-23  # what rounding leaves of numbers near 1, such as a mean of none
_FLAT = -1
_PRIME = np.uint64(0x9E3779B97F4A7C15)

_Words = NDArray[np.uint32] | NDArray[np.uint16]
"""Bits of numbers without their sign; round ones are 0."""


class CommonRun(NamedTuple):
    """That one tensor repeats numbers in a row of another."""

    name: str
    numbers: int
    other: str


def common_runs(
    tensors: Sequence[NamedTensor], others: Sequence[NamedTensor], known: Sequence[Tensor] = ()
) -> tuple[CommonRun, ...]:
    """Find tensors that hold numbers in a row, along any dimension, of the others.

    Signs are left out, so that a negation is found, and rows are read in either direction; floats are compared as
    float32, float16 and bfloat16, integers and complex numbers also by the floats that their bytes are; tensors of a
    few numbers are read one after the other.
    Rows of few different, of round, tiny or nearly equal numbers are nobody's: ones, tables of places, filters.

    Args:
        tensors: that are searched.
        others: whose numbers are sought.
        known: whose numbers may be had by both.
    """
    sequences = list(_with_short_ones(tensors))
    found: dict[str, CommonRun] = {}
    for dtype, row in _ROWS.items():
        mine = [(name, _words(view.to(dtype))) for name, tensor in sequences for view in _as_floats(tensor, dtype)]
        sought = _Sought([words for _, words in mine], row)
        theirs = [
            (entry.name, sought.candidates(_words(entry.tensor.detach().cpu().to(dtype))))
            for entry in (others if sought.any else ())
            if entry.tensor.is_floating_point()
        ]
        allowed = [_hashes(_words(tensor.detach().cpu().to(dtype)), row) for tensor in known]
        wanted = np.setdiff1d(_joined(hashes for _, hashes in theirs), _joined(allowed))
        if not wanted.size:
            continue
        table = _Table(wanted)
        for name, words in mine:
            own = _hashes(words, row)
            own = own[table.may_have(own)]
            own = own[wanted[np.searchsorted(wanted, own).clip(max=wanted.size - 1)] == own]
            for other, hashes in theirs if own.size else ():
                if matches := int(np.isin(own, hashes).sum()):
                    found.setdefault(name, CommonRun(name, min(matches + row.numbers - 1, words.size), other))
    return tuple(found.values())


class _Table:
    """Tells of most numbers that they are none of those that it was made of."""

    def __init__(self, *known: NDArray[Any]) -> None:
        count = sum(part.size for part in known)
        self._shift = np.uint64(64 - min(max(count.bit_length() + 3, 8), _TABLE_BITS))
        self._table = np.zeros(2 ** (64 - int(self._shift)), dtype=np.bool_)
        for part in known:
            self._table[self._places(part)] = True

    def may_have(self, numbers: NDArray[Any]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self._table[self._places(numbers)]
        return found

    def _places(self, numbers: NDArray[Any]) -> NDArray[np.uint64]:
        return (numbers * _PRIME) >> self._shift


class _Sought:
    """The rows of numbers that are looked for; nearly all others are told by their single numbers."""

    def __init__(self, arrays: Sequence[_Words], row: _Row) -> None:
        self._row = row
        filled = [words[words != 0] for words in arrays]
        self.any = any(words.size for words in filled)
        if self.any:
            self._numbers = _Table(*filled)
            self._rows = _Table(*(_hashes(words, row) for words in arrays))

    def candidates(self, words: _Words) -> NDArray[np.uint64]:
        """Hashes of the rows that may be among them, in each order in which they can be read."""
        hashes = _hashes(words, self._row, self._numbers.may_have(words) & (words != 0))
        return hashes[self._rows.may_have(hashes)]


def _with_short_ones(tensors: Sequence[NamedTensor]) -> Iterator[tuple[str, Tensor]]:
    short: dict[torch.dtype, list[NamedTensor]] = {}
    for entry in tensors:
        tensor = entry.tensor.detach().cpu()
        yield entry.name, tensor
        if 0 < tensor.numel() < _SHORT:
            short.setdefault(tensor.dtype, []).append(entry)
    for entries in short.values():
        if len(entries) > 1:
            joined = torch.cat([entry.tensor.detach().cpu().reshape(-1) for entry in entries])
            yield f"{entries[0].name} to {entries[-1].name}", joined


def _as_floats(tensor: Tensor, dtype: torch.dtype) -> Iterator[Tensor]:
    if tensor.is_complex():
        parts = torch.view_as_real(tensor.resolve_conj())
        yield from (parts, parts[..., 0], parts[..., 1])
    elif tensor.is_floating_point():
        # A lower precision than a tensor has is looked at where the tensor has it: rounding is the thief's.
        if dtype is torch.float32 or tensor.dtype is dtype:
            yield tensor
    else:
        content = tensor.contiguous().reshape(-1).view(torch.uint8)
        size = dtype.itemsize
        for start in range(size if tensor.element_size() == 1 else 1):
            rest = content[start:]
            yield rest[: len(rest) // size * size].clone().view(dtype)


def _words(tensor: Tensor) -> _Words:
    magnitudes = tensor.contiguous().abs()
    scaled = magnitudes.float() * 256
    bits = magnitudes.view(torch.int32 if tensor.element_size() == 4 else torch.int16)
    bits[(scaled == scaled.round()) | (magnitudes < _TINY) | ~scaled.isfinite()] = 0
    return bits.numpy().view(np.uint32) if tensor.element_size() == 4 else bits.numpy().view(np.uint16)


def _hashes(words: _Words, row: _Row, wanted: NDArray[np.bool_] | None = None) -> NDArray[np.uint64]:
    """A hash, the same in either direction, of each row of numbers that are wanted and telling.

    Rows are flat, and along each other long dimension. Telling are those without a round number, without the same
    number twice within three, and not all close together.
    """
    length = row.numbers
    wanted = words != 0 if wanted is None else wanted
    axes = [_FLAT, *(axis for axis in range(words.ndim - 1) if words.shape[axis] >= min(_ROWS.values()).numbers)]
    found = []
    for axis in axes if words.size >= length else ():
        order = _along(wanted, axis)
        inside = order[: order.size - length + 1].copy()
        for place in range(1, length):
            inside &= order[place : order.size - length + 1 + place]
        starts = np.flatnonzero(inside)
        if starts.size:
            found.append(_hashes_at(_along(words, axis), starts, row))
    return _joined(found)


def _joined(hashes: Iterable[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    return np.concatenate([np.empty(0, np.uint64), *hashes])


def _hashes_at(words: _Words, starts: NDArray[np.int64], row: _Row) -> NDArray[np.uint64]:
    windows = [words[starts + place] for place in range(row.numbers)]
    telling = np.maximum.reduce(windows) - np.minimum.reduce(windows) >= row.spread
    for place in range(1, row.numbers):
        telling &= windows[place] != windows[place - 1]
        if place > 1:
            telling &= windows[place] != windows[place - 2]
    windows = [window[telling] for window in windows]
    total = _polynomial(windows) * _polynomial(windows[::-1])
    return total ^ (total >> np.uint64(32))


def _polynomial(windows: Sequence[_Words]) -> NDArray[np.uint64]:
    total = np.zeros(windows[0].size, np.uint64)
    for window in windows:
        total *= _PRIME
        total += window
    return total | np.uint64(1)


def _along(array: NDArray[Any], axis: int) -> NDArray[Any]:
    return array.reshape(-1) if axis == _FLAT else np.moveaxis(array, axis, -1).reshape(-1)
