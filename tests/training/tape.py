"""Recording a step's operations on a CPU, to repeat them as a CUDA graph repeats its kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class TapeRecorder:
    """A recorder without CUDA: what is repeated are torch's operations, with the numbers and on the memory they had."""

    def __init__(self) -> None:
        self.recordings = 0

    @contextmanager
    def apart(self) -> Iterator[None]:
        yield

    def find_wait(self, work: Callable[[], None]) -> str | None:
        work()
        return None

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self.recordings += 1
        tape = _Tape()
        with tape:
            work()
        return tape.repeat


class _Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls: list[tuple[Any, tuple[Any, ...], Mapping[str, Any], Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self._calls.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def repeat(self) -> None:
        for func, args, kwargs, result in self._calls:
            again = func(*args, **kwargs)
            for old, new in zip(_tensors(result), _tensors(again), strict=True):
                # an empty one has been given a storage since, by an operation that is repeated as well
                if new.numel() and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
