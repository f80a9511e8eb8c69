"""A search through everything that an object holds on to, with the path to what is found."""

from __future__ import annotations

import functools
import gc
import sys
import types
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ecd_deploy.compat.torch import REGISTERS, gradient_hooks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_Edge = tuple[str, object]

# Modules and frames belong to the program, not to the object; the rest holds nothing.
_NOT_FOLLOWED = (
    types.ModuleType,
    types.FrameType,
    types.CodeType,
    types.NoneType,
    str,
    bytes,
    int,
    float,
    complex,
    torch.dtype,
    torch.device,
    torch.Size,
)


_LIBRARIES = frozenset({"accelerate", "numpy", "torch", "torchvision"})


@dataclass(frozen=True)
class Found:
    """A wanted object, what it is, and the shortest path of attributes that leads to it."""

    path: str
    description: str


@dataclass(frozen=True)
class Search:
    """The wanted objects that were met, and how many objects were looked at."""

    found: tuple[Found, ...]
    visited: int


def search(root: object, name: str, wanted: Callable[[object], str | None]) -> Search:
    """Walk breadth first from `root` to whatever it holds on to.

    Followed are attributes, containers, hooks, closures, defaults, bound objects, classes, and the globals that
    functions name.

    Args:
        root: where to start; it is not itself compared.
        name: what the paths begin with.
        wanted: describes an object that is looked for, None for any other. The walk does not look behind a find.
    """
    found: list[Found] = []
    # Objects made on the way (bound methods, tuples) stay alive here, or their ids would be given to others.
    seen: dict[int, object] = {id(root): root}
    queue: deque[_Edge] = deque([(name, root)])
    while queue:
        path, holder = queue.popleft()
        for step, value in _edges(holder):
            if isinstance(value, _NOT_FOLLOWED) or id(value) in seen:
                continue
            seen[id(value)] = value
            description = wanted(value)
            if description is None:
                queue.append((path + step, value))
            else:
                found.append(Found(path + step, description))
    return Search(tuple(found), len(seen))


def _edges(holder: object) -> Iterator[_Edge]:
    if isinstance(holder, nn.Module):
        yield from _module_edges(holder)
    elif isinstance(holder, Tensor):
        yield from _tensor_edges(holder)
    elif isinstance(holder, type):
        yield from _class_edges(holder)
    elif isinstance(holder, torch.autograd.graph.Node):
        yield ".next_functions", holder.next_functions
        yield ".variable", getattr(holder, "variable", None)
    elif isinstance(holder, types.FunctionType):
        yield from _function_edges(holder)
    elif isinstance(holder, types.MethodType):
        yield ".__self__", holder.__self__
        yield ".__func__", holder.__func__
    elif isinstance(holder, types.BuiltinFunctionType):
        yield ".__self__", holder.__self__
    elif isinstance(holder, weakref.ReferenceType):
        yield "()", holder()
    else:
        yield from _object_edges(holder)


def _module_edges(module: nn.Module) -> Iterator[_Edge]:
    yield ".__class__", type(module)
    for attribute, value in vars(module).items():
        if attribute in REGISTERS and isinstance(value, dict):
            for name, member in value.items():
                yield f".{name}", member
        else:
            yield f".{attribute}", value


def _tensor_edges(tensor: Tensor) -> Iterator[_Edge]:
    if tensor.is_leaf:
        yield ".grad", tensor.grad
    yield ".grad_fn", tensor.grad_fn
    yield "._backward_hooks", gradient_hooks(tensor)
    yield from _attribute_edges(tensor)


def _function_edges(function: types.FunctionType) -> Iterator[_Edge]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f".__closure__[{name}]", cell.cell_contents
        except ValueError:  # a variable that is not bound yet
            continue
    yield ".__defaults__", function.__defaults__
    yield ".__kwdefaults__", function.__kwdefaults__
    yield ".__dict__", function.__dict__
    if not _of_a_library(function):
        yield from _global_edges(function)


def _class_edges(kind: type) -> Iterator[_Edge]:
    """A class reaches its bases and what stands in it; of a library's classes, only functions put in from outside."""
    for base in kind.__mro__[1:]:
        yield f".<base {base.__name__}>", base
    for name, value in vars(kind).items():
        function = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
        if not _of_a_library(kind) or (isinstance(function, types.FunctionType) and not _of_a_library(function)):
            yield f".{name}", function


def _global_edges(function: types.FunctionType) -> Iterator[_Edge]:
    """The globals that a function names, and what it names of modules that are no library."""
    names = _names(function.__code__)
    for name in sorted(names & function.__globals__.keys()):
        value = function.__globals__[name]
        yield f".__globals__[{name}]", value
        if isinstance(value, types.ModuleType) and not _of_a_library(value):
            for attribute in sorted(names & vars(value).keys()):
                yield f".__globals__[{name}].{attribute}", vars(value)[attribute]


def _names(code: types.CodeType) -> set[str]:
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*inner)


def _of_a_library(thing: object) -> bool:
    """Whether it is defined in Python itself or in a library whose globals hold no model of the user's."""
    where = thing.__name__ if isinstance(thing, types.ModuleType) else getattr(thing, "__module__", None)
    package = str(where).partition(".")[0]
    return package in sys.stdlib_module_names or package in _LIBRARIES


def _object_edges(holder: object) -> Iterator[_Edge]:
    if isinstance(holder, (dict, types.MappingProxyType)):
        for key, value in holder.items():
            yield f"[{_shown(key)}]", value
            yield f".key({_shown(key)})", key
    elif isinstance(holder, (list, tuple, set, frozenset, deque)):
        for index, value in enumerate(holder):
            yield f"[{index}]", value
    elif isinstance(holder, functools.partial):
        yield ".func", holder.func
        yield ".args", holder.args
        yield ".keywords", holder.keywords
    yield from _attribute_edges(holder)
    # What has no attribute of its own to show (iterators, generators, cells, objects of extensions).
    for index, value in enumerate(gc.get_referents(holder)):
        yield f".<referent {index}>", value


def _attribute_edges(holder: object) -> Iterator[_Edge]:
    attributes = _stored(holder, "__dict__")
    for attribute, value in attributes.items() if isinstance(attributes, dict) else ():
        yield f".{attribute}", value
    for kind in type(holder).__mro__:
        slots = vars(kind).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if slot not in ("__dict__", "__weakref__"):
                yield f".{slot}", _stored(holder, slot)


def _stored(holder: object, attribute: str) -> object:
    """An attribute as it is stored: an object's own `__getattr__` may do anything."""
    try:
        return object.__getattribute__(holder, attribute)
    except AttributeError:
        return None


def _shown(key: object) -> str:
    return repr(key) if isinstance(key, (str, int, float, bool)) else type(key).__name__
