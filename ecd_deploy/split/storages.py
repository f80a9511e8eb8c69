"""Which tensors live in the same memory, whatever they are called, and how memory is set aside."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, UntypedStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ecd_deploy.split.inventory import NamedTensor


class StorageIndex:
    """Finds, among named tensors, those whose memory another tensor touches.

    Whole storages are compared, by address range: views, transposes and disjoint slices of one storage share it,
    and so do two storages over one foreign buffer (an array, for example).
    """

    def __init__(self, tensors: Iterable[NamedTensor]) -> None:
        entries = [(entry.name, span) for entry in tensors if (span := _span(entry.tensor)) is not None]
        self._names = [name for name, _ in entries]
        self._devices = np.array([device for _, (device, _, _) in entries], dtype=object)
        self._starts = np.array([start for _, (_, start, _) in entries], dtype=np.uint64)
        self._ends = np.array([end for _, (_, _, end) in entries], dtype=np.uint64)

    def sharing(self, tensor: Tensor) -> tuple[str, ...]:
        """Names of the tensors whose storage overlaps that of `tensor`."""
        span = _span(tensor)
        if span is None or not self._names:
            return ()
        device, start, end = span
        hits = (self._starts < np.uint64(end)) & (self._ends > np.uint64(start)) & (self._devices == device)
        return tuple(self._names[int(index)] for index in np.flatnonzero(hits))


@contextmanager
def saved_storages(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Write back, on leaving, the bytes that the tensors' storages hold now."""
    storages = {(storage.data_ptr(), storage.nbytes()): storage for storage in map(Tensor.untyped_storage, tensors)}
    copies: dict[tuple[int, int], UntypedStorage] = {
        key: storage.clone()  # type: ignore[no-untyped-call]
        for key, storage in storages.items()
    }
    try:
        yield
    finally:
        for key, storage in storages.items():
            storage.copy_(copies[key])


@contextmanager
def poisoned(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Set every floating-point tensor to NaN for the length of the block, and restore it afterwards."""
    with _overwritten(tensors, lambda alias: alias.fill_(torch.nan)):
        yield


@contextmanager
def randomised(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Draw every floating-point tensor anew, 0.5 to 1.5, for the length of the block, and restore it afterwards."""
    generators: dict[torch.device, torch.Generator] = {}

    def draw(alias: Tensor) -> None:
        if alias.device not in generators:
            generators[alias.device] = torch.Generator(alias.device).manual_seed(0)
        alias.uniform_(0.5, 1.5, generator=generators[alias.device])

    with _overwritten(tensors, draw):
        yield


@contextmanager
def _overwritten(tensors: Sequence[Tensor], write: Callable[[Tensor], object]) -> Iterator[None]:
    # Writes go through fresh aliases of the storages, so that autograd's version counters do not move.
    with saved_storages(tensors):
        for tensor in tensors:
            if tensor.is_floating_point():
                alias = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
                alias.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())
                write(_without_repetition(alias))
        yield


def _without_repetition(alias: Tensor) -> Tensor:
    # An expanded tensor has several indices for one element, which torch refuses to write through.
    for dimension, stride in enumerate(alias.stride()):
        if stride == 0 and alias.shape[dimension] > 1:
            alias = alias.narrow(dimension, 0, 1)
    return alias


def _span(tensor: Tensor) -> tuple[str, int, int] | None:
    storage = tensor.untyped_storage()
    if storage.nbytes() == 0:
        return None
    return str(tensor.device), storage.data_ptr(), storage.data_ptr() + storage.nbytes()
