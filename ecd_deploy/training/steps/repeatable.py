"""Whether a step's work is the same each time, so that a recording of it may stand for it.

A recording repeats operations on a device, and nothing that Python does: a student that counts its calls, draws from
`random`, or keeps a tensor of the last step would silently be trained otherwise.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ecd_deploy.compat.torch import own_buffers, own_parameters

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


@contextmanager
def host_state_kept(model: nn.Module) -> Iterator[None]:
    """Give a model's plain attributes, and the random generators of Python and NumPy, their states back at the end."""
    before = _HostState.of(model)
    try:
        yield
    finally:
        before.put_back(model)


def find_change(model: nn.Module, work: Callable[[], None]) -> str | None:
    """Do the work twice and say what differs, or what Python kept of it; None if nothing does.

    Args:
        model: whose modules' attributes are watched.
        work: of a step.
    """
    before = _HostState.of(model)
    operations: list[list[_Operation]] = []
    for _ in range(2):
        with _Watch() as watch:
            work()
        operations.append(watch.operations)
    kept = before.difference(_HostState.of(model))
    return kept or _find_move(operations[1]) or _find_difference(*operations)


@dataclass(frozen=True)
class _Operation:
    """An operation on tensors: its name, its numbers, the shapes of its tensors, and on which devices they are."""

    name: str
    numbers: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    devices: frozenset[str]


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation while the context lasts."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[_Operation] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        # a tensor without dimensions may be a number of the host's, which every device accepts
        devices = frozenset(tensor.device.type for tensor in (*tensors, *results) if tensor.ndim)
        numbers = tuple(repr(leaf) for leaf in leaves if isinstance(leaf, int | float | complex))
        self.operations.append(_Operation(str(func), numbers, tuple(tensor.shape for tensor in tensors), devices))
        return result


@dataclass(frozen=True)
class _HostState:
    """What Python keeps from one step to the next.

    Attributes:
        attributes: by the path of a module and the attribute's name: the value, and what it holds if it is a
            collection.
        python: state of Python's random generator.
        numpy: likewise NumPy's.
        torch: likewise torch's on the host; None for a model on a CPU, which may draw from it.
    """

    attributes: dict[tuple[str, str], tuple[object, ...]]
    python: tuple[Any, ...]
    numpy: dict[str, Any]
    torch: Tensor | None

    @classmethod
    def of(cls, model: nn.Module) -> _HostState:
        """Look at a model's attributes and at the generators."""
        is_on_host = all(parameter.device.type == "cpu" for parameter in model.parameters())
        return cls(
            attributes={
                (path, name): (value, *_items(value))
                for path, module in model.named_modules()
                for name, value in (vars(module) | own_parameters(module) | own_buffers(module)).items()
            },
            python=random.getstate(),
            numpy=np.random.get_state(legacy=False),  # noqa: NPY002 (the generator that old code draws from)
            torch=None if is_on_host else torch.get_rng_state(),
        )

    def difference(self, later: _HostState) -> str | None:
        """What another state has that this one has not."""
        for path, name in self.attributes | later.attributes:
            if not _is_same(self.attributes.get((path, name)), later.attributes.get((path, name))):
                changed = ".".join(part for part in (path, name) if part)
                return f"the model's attribute '{changed}' changes from step to step"
        is_drawn = {
            "Python's": self.python != later.python,
            "NumPy's": repr(self.numpy) != repr(later.numpy),
            "torch's": self.torch is not None and later.torch is not None and not torch.equal(self.torch, later.torch),
        }
        names = [name for name, drawn in is_drawn.items() if drawn]
        return f"the model draws from {names[0]} random generator of the host" if names else None

    def put_back(self, model: nn.Module) -> None:
        """Give the modules their plain attributes back, and the generators their states."""
        modules = dict(model.named_modules())
        for (path, name), (value, *_) in self.attributes.items():
            if isinstance(value, _PLAIN) and name in vars(modules[path]):
                setattr(modules[path], name, value)
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002 (the generator that old code draws from)


def _items(value: object) -> tuple[object, ...]:
    if isinstance(value, dict):
        return tuple(value.values())
    return tuple(value) if isinstance(value, list | set | deque) else ()


def _is_same(before: tuple[object, ...] | None, after: tuple[object, ...] | None) -> bool:
    """Whether two attributes are the same objects, or equal where they are plain values."""
    if before is None or after is None or len(before) != len(after):
        return before is after
    return all(
        value is later or (isinstance(value, _PLAIN) and type(value) is type(later) and value == later)
        for value, later in zip(before, after, strict=True)
    )


def _find_move(operations: list[_Operation]) -> str | None:
    names = [operation.name for operation in operations if len(operation.devices) > 1]
    return f"it moves data between the host and the device, by {names[0]}" if names else None


def _find_difference(first: list[_Operation], second: list[_Operation]) -> str | None:
    for before, after in zip_longest(first, second):
        if before != after:
            name = (after or before).name
            return f"its operations differ from step to step, the first at {name}"
    return None
