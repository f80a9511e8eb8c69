"""Interfaces to torch's memory that are private or not documented; each function names the one that it rests on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef


def refer_to_storage(tensor: Tensor) -> StorageWeakRef:
    """What keeps a memory's number, `cdata`, from being another's, and not the memory itself: `StorageWeakRef`."""
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def with_storage(
    holder: Tensor, dtype: torch.dtype, size: tuple[int, ...], stride: tuple[int, ...], offset: int
) -> Tensor:
    """A tensor on the memory of another one, of any type and size: `Tensor.set_`."""
    empty = torch.empty(0, dtype=dtype, device=holder.device)
    return empty.set_(holder.untyped_storage(), offset, size, stride)
