"""The operations of a step as a list that can be changed and done again.

Below autograd a step that is the same every time is a straight list of operations on memory. What each reads and
writes is kept as a place in a numbered memory, so that the list can be done again on other memory, and a chain of it
be replaced, without a look at the Python that made it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from ecd_deploy.compat.torch import refer_to_storage, schema_of, with_storage

_WITHOUT_WORK = ("aten.set_.source_Storage_storage_offset", "aten.detach.default", "aten.alias.default")


@dataclass(frozen=True)
class View:
    """A tensor: the number of its memory, and how it lies there."""

    memory: int
    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @property
    def count(self) -> int:
        """Numbers that it has."""
        return torch.Size(self.size).numel()

    @property
    def is_contiguous(self) -> bool:
        """Whether its numbers lie one after the other, from the beginning of the memory."""
        return self.offset == 0 and self.stride == torch.empty(self.size, device="meta").stride()


@dataclass(frozen=True)
class Call:
    """An operation: what it is given, with a `View` for each tensor, and the tensors that it returns."""

    operator: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]
    results: tuple[View, ...]

    @property
    def inputs(self) -> tuple[View, ...]:
        """Tensors that it is given."""
        return tuple(leaf for leaf in tree_leaves((self.arguments, self.options)) if isinstance(leaf, View))

    @property
    def touched(self) -> frozenset[int]:
        """Memory that it reads or writes."""
        return frozenset(view.memory for view in (*self.inputs, *self.results))

    @property
    def written(self) -> frozenset[int]:
        """Memory that it writes, its results' included."""
        schema = schema_of(self.operator)
        named = {} if schema is None else {argument.name: argument for argument in schema.arguments}
        given = dict(zip(named, self.arguments, strict=False)) | dict(self.options)
        changed = [value for name, value in given.items() if (info := named[name].alias_info) and info.is_write]
        views = [leaf for leaf in tree_leaves(changed) if isinstance(leaf, View)]
        return frozenset(view.memory for view in (*views, *self.results))


@dataclass(frozen=True)
class Program:
    """A list of operations.

    Attributes:
        calls: in their order.
        outside: tensors that were there before, by the number of their memory; what is done to them stays.
    """

    calls: tuple[Call, ...]
    outside: Mapping[int, Tensor]

    @torch.no_grad()
    def run(self, do: Do | None = None) -> None:
        """Do all of it, and let go of each result after its last use.

        Args:
            do: an operation, in place of `perform`.

        Raises:
            RuntimeError: an operation returned a tensor that lies otherwise than it did.
        """
        do = do or perform
        held = dict(self.outside)
        last = {memory: number for number, call in enumerate(self.calls) for memory in call.touched}
        for number, call in enumerate(self.calls):
            results = do(call, held)
            for view, tensor in zip(call.results, results, strict=True):
                if (view.size, view.stride, view.offset) != (tensor.size(), tensor.stride(), tensor.storage_offset()):
                    raise RuntimeError(f"{call.operator} returned a tensor that lies otherwise than before")
                if view.memory not in self.outside:
                    held[view.memory] = tensor
            for memory in call.touched:
                if last[memory] == number and memory not in self.outside:
                    held.pop(memory, None)


Do = Callable[[Call, Mapping[int, Tensor]], tuple[Tensor, ...]]


def perform(call: Call, held: Mapping[int, Tensor]) -> tuple[Tensor, ...]:
    """Do an operation on memory that is held, by a tensor of each, and return its results."""
    arguments, options = given(call, held)
    return tuple(leaf for leaf in tree_leaves(call.operator(*arguments, **options)) if isinstance(leaf, Tensor))


def given(call: Call, held: Mapping[int, Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What an operation is given, by position and by name, on memory that is held."""

    def placed(leaf: Any) -> Any:
        if not isinstance(leaf, View):
            return leaf
        return with_storage(held[leaf.memory], leaf.dtype, leaf.size, leaf.stride, leaf.offset)

    arguments, options = tree_map(placed, (call.arguments, dict(call.options)))
    return arguments, options


def record(work: Callable[[], None]) -> Program:
    """Do work and return its operations.

    Raises:
        RuntimeError: the host reads a value in it, or a tensor is not a plain one.
    """
    with _Recording() as recording:
        work()
    return Program(tuple(recording.calls), recording.outside)


class _Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lists operations while the context lasts.

    A reference keeps a memory's number from being given to another one, and not the memory itself.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []
        self.outside: dict[int, Tensor] = {}
        self._numbers: dict[int, int] = {}
        self._references: list[object] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "profiler":
            return func(*args, **kwargs)
        arguments, options = tree_map(lambda leaf: self._seen(leaf, is_given=True), (args, dict(kwargs)))
        result = func(*args, **kwargs)
        leaves = tree_leaves(result)
        if any(isinstance(leaf, bool | int | float) for leaf in leaves):
            raise RuntimeError(f"{func} gives the host a value")
        results = tuple(self._seen(leaf, is_given=False) for leaf in leaves if isinstance(leaf, Tensor))
        if not func.is_view and str(func) not in _WITHOUT_WORK:
            self.calls.append(Call(func, arguments, options, results))
        return result

    def _seen(self, leaf: Any, *, is_given: bool) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if type(leaf) not in (Tensor, torch.nn.Parameter) or leaf.layout != torch.strided or leaf.is_neg():
            raise RuntimeError(f"a tensor is a {type(leaf).__name__}, {leaf.layout}")
        reference = refer_to_storage(leaf)
        if reference.cdata not in self._numbers:
            self._numbers[reference.cdata] = len(self._numbers)
            self._references.append(reference)
            if is_given:
                self.outside[self._numbers[reference.cdata]] = leaf.detach()
        number = self._numbers[reference.cdata]
        return View(number, leaf.dtype, tuple(leaf.size()), leaf.stride(), int(leaf.storage_offset()))
