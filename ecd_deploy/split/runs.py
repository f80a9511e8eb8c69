"""Runs of numbers that two sets of tensors have in common, whatever tensor, data type or place they stand in."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ecd_deploy.split.inventory import NamedTensor

_LENGTHS = {torch.float32: 4, torch.float16: 6, torch.bfloat16: 7}
"""Numbers in a row that are no coincidence, by their precision."""
_TABLE_BITS = 24
_SHORT = 8
_TINY = 1e-30


class CommonRun(NamedTuple):
    """That one tensor repeats numbers in a row of another."""

    name: str
    numbers: int
    other: str


def common_runs(
    tensors: Sequence[NamedTensor], others: Sequence[NamedTensor], known: Sequence[Tensor] = ()
) -> tuple[CommonRun, ...]:
    """Find tensors that hold numbers in a row, along any dimension, of the others.

    Signs are left out, so that a negation is found; floats are compared as float32, float16 and bfloat16, integers and
    complex numbers also by the floats that their bytes are; tensors of a few numbers are read one after the other.
    Rows of few different or of round numbers are nobody's: ones, tables of places, filters.

    Args:
        tensors: that are searched.
        others: whose numbers are sought.
        known: whose numbers may be had by both.
    """
    sequences = list(_with_short_ones(tensors))
    found: dict[str, CommonRun] = {}
    for dtype, length in _LENGTHS.items():
        mine = [(name, _hashes(numbers, length)) for name, numbers in _readings(sequences, dtype)]
        allowed = [_hashes(run, length) for tensor in known for run in _runs(tensor.detach().cpu().to(dtype))]
        index = _Index([hashes for _, hashes in mine], allowed)
        for entry in others if index.hashes.size else ():
            if not entry.tensor.is_floating_point():
                continue
            for run in _runs(entry.tensor.detach().cpu().to(dtype)):
                common = index.common(_hashes(run, length))
                for name, own in mine if common.size else ():
                    if matches := int(np.isin(own, common).sum()):
                        found.setdefault(name, CommonRun(name, matches + length - 1, entry.name))
    return tuple(found.values())


class _Index:
    """Finds which of many hashes are known; most that are not are told by a few of their bits."""

    def __init__(self, known: Sequence[NDArray[np.uint64]], allowed: Sequence[NDArray[np.uint64]]) -> None:
        empty = np.empty(0, np.uint64)
        hashes = np.concatenate([empty, *known])
        self.hashes = np.sort(hashes[~np.isin(hashes, np.concatenate(allowed))] if allowed else hashes)
        self._table = np.zeros(2**_TABLE_BITS, dtype=np.bool_)
        self._table[self._places(self.hashes)] = True

    def common(self, hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
        candidates = hashes[self._table[self._places(hashes)]]
        places = np.searchsorted(self.hashes, candidates).clip(max=max(self.hashes.size - 1, 0))
        common: NDArray[np.uint64] = candidates[self.hashes[places] == candidates]
        return common

    def _places(self, hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return hashes >> np.uint64(64 - _TABLE_BITS)


def _readings(sequences: Iterable[tuple[str, Tensor]], dtype: torch.dtype) -> Iterator[tuple[str, NDArray[np.uint64]]]:
    """The numbers of tensors as bits of a type without their sign, in each order in which they may be read."""
    for name, tensor in sequences:
        for view in _as_floats(tensor, dtype):
            yield from ((name, run) for run in _runs(view.to(dtype)))


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


def _runs(tensor: Tensor) -> Iterator[NDArray[np.uint64]]:
    """The bits of the numbers without their sign, flat and with each other long dimension last; round ones are 0."""
    tensor = tensor.contiguous()
    words = tensor.abs().view(torch.int32 if tensor.element_size() == 4 else torch.int16).numpy().astype(np.uint64)
    scaled = tensor.float() * 256
    words[((scaled == scaled.round()) | (scaled.abs() < _TINY) | ~scaled.isfinite()).numpy()] = 0
    yield words.reshape(-1)
    for axis in range(words.ndim - 1):
        if words.shape[axis] >= min(_LENGTHS.values()):
            yield np.moveaxis(words, axis, -1).reshape(-1)


def _hashes(words: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """A hash of each row of `length` numbers, all different and none round."""
    if words.size < length:
        return np.empty(0, np.uint64)
    windows = [words[start : words.size - length + 1 + start] for start in range(length)]
    telling = windows[0] != 0
    for place in range(1, length):
        telling &= windows[place] != 0
        telling &= windows[place] != windows[place - 1]
        if place > 1:
            telling &= windows[place] != windows[place - 2]
    total = np.zeros(int(telling.sum()), np.uint64)
    for window in windows:
        total = (total ^ window[telling]) * np.uint64(0x9E3779B97F4A7C15)
        total ^= total >> np.uint64(29)
    return total * np.uint64(0xBF58476D1CE4E5B9)
