"""Which module of a student does something first: found by watching what each gives in a forward."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Watched:
    """What modules gave, in the order in which their calls ended: children before the module that holds them.

    Attributes:
        calls: a module's name and the first tensor that it gave; modules that gave none are left out.
    """

    calls: list[tuple[str, Tensor]] = field(default_factory=list)


@contextmanager
def watched(student: nn.Module) -> Iterator[Watched]:
    """Watch the modules of a student, but not itself, while the context lasts; no hook stays."""
    found = Watched()

    def watcher(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def watch(_module: nn.Module, _inputs: Any, output: Any) -> None:
            items = output if isinstance(output, tuple | list) else (output,)
            tensor = next((item for item in items if isinstance(item, Tensor)), None)
            if tensor is not None:
                found.calls.append((name, tensor))

        return watch

    handles = [module.register_forward_hook(watcher(name)) for name, module in student.named_modules() if name]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def first_differing(first: Watched, second: Watched, differ: Callable[[Tensor, Tensor], bool]) -> str | None:
    """Name of the module whose output is the first to differ between two forwards; None if none does.

    Args:
        first: of one forward.
        second: of the other; modules are compared as long as both forwards call the same ones.
        differ: whether two outputs of one module, at the same place in both forwards, do.
    """
    for (name, one), (other_name, other) in zip(first.calls, second.calls, strict=False):
        if name != other_name or differ(one, other):
            return name
    return None


def described(student: nn.Module, name: str | None) -> str:
    """A module in the words of an error: its name and class, or the student's own forward."""
    if name is None:
        return f"the student's own forward ({type(student).__name__})"
    return f"module '{name}' ({type(student.get_submodule(name)).__name__})"
