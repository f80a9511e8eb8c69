"""Running a copy of a network from its middle: what ran before is given to it, and not computed again.

A module is the cut. In the copy, each call that ended before it returns what the network's own call returned, with
its history. What is computed between calls (sums, concatenations) is computed in the copy too. So the cut, and what
comes after it, gets all that it needs: a tensor, a list, or the features of earlier stages besides.
"""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ecd_deploy.distill.student.feature_maps import feature_given, mapped
from ecd_deploy.errors import StudentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NOT_THE_SAME = "a student that calls its modules otherwise from time to time, or at random, cannot be branched"


@dataclass(frozen=True, kw_only=True)
class EarlyCalls:
    """What a network calls before the cut.

    Attributes:
        cut: the module's name.
        modules: names of those whose calls end before the cut's first begins, each once; of calls in calls the outer.
        later: names of those that run at the cut's first call or are called afterwards.
        needed: those of `modules` whose outputs count for what the copy computes. Of the others, zeros are given.
    """

    cut: str
    modules: tuple[str, ...]
    later: frozenset[str]
    needed: frozenset[str]


@dataclass
class Record:
    """What the early calls of one forward returned.

    Attributes:
        outputs: of each module, in the order of its calls.
        feature: the first that the cut was called with, (N, C, H, W); None if there was none.
    """

    outputs: dict[str, list[object]]
    feature: Tensor | None = None

    def to_leaves(self) -> list[tuple[str, Tensor]]:
        """Cut the tensors' history off, and return those that can have a gradient with their modules' names."""
        leaves: list[tuple[str, Tensor]] = []

        def cut_off(name: str, tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point():
                return tensor
            leaves.append((name, tensor.detach().requires_grad_()))
            return leaves[-1][1]

        for name, outputs in self.outputs.items():
            self.outputs[name] = [mapped(output, partial(cut_off, name)) for output in outputs]
        return leaves


@dataclass
class _Observed:
    """The calls of one forward: those that are open, the outermost first, each with what ended directly below it."""

    open: list[tuple[str, list[str]]] = field(default_factory=lambda: [("", [])])
    early: list[str] | None = None
    later: set[str] = field(default_factory=set)

    def begin(self, name: str, cut: str) -> None:
        if name == cut and self.early is None:
            self.early = [ended for _, below in self.open for ended in below]
            self.later.update(running for running, _ in self.open)
        if self.early is not None:
            self.later.add(name)
        self.open.append((name, []))

    def end(self) -> None:
        name, _ = self.open.pop()
        self.open[-1][1].append(name)


def find_early_calls(network: nn.Module, cut: str, images: Tensor) -> EarlyCalls:
    """See in one forward, in the mode that the network is in, what is called before the cut; all of it is needed.

    Args:
        network: images (N, C, H, W) -> logits (N, classes).
        cut: name of a module that it calls.
        images: any.
    """
    observed = _Observed()

    def beginner(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda _module, _arguments: observed.begin(name, cut)

    def end(_module: nn.Module, _arguments: Any, _output: Any) -> None:
        observed.end()

    with torch.no_grad(), ExitStack() as hooks:
        for name, module in network.named_modules():
            if name:
                hooks.callback(module.register_forward_pre_hook(beginner(name)).remove)
                hooks.callback(module.register_forward_hook(end).remove)
        network(images)
    modules = tuple(dict.fromkeys(observed.early or ()))
    return EarlyCalls(cut=cut, modules=modules, later=frozenset(observed.later), needed=frozenset(modules))


@contextmanager
def recording(network: nn.Module, calls: EarlyCalls) -> Iterator[Record]:
    """Keep what the early calls return while the context lasts, for one forward.

    Raises:
        StudentError: the cut was not called.
    """
    record = Record({name: [] for name in calls.modules})
    running = 0
    passed = False

    def begin(_module: nn.Module, _arguments: Any) -> None:
        nonlocal running
        running += 1

    def keeper(name: str) -> Callable[[nn.Module, Any, object], None]:
        change = _kept if name in calls.needed else _blank

        def keep(_module: nn.Module, _arguments: Any, output: object) -> None:
            nonlocal running
            running -= 1
            if not passed and running == 0:
                record.outputs[name].append(mapped(output, change))

        return keep

    def reach(_module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
        nonlocal passed
        if not passed:
            feature = feature_given(arguments, keywords)
            record.feature = None if feature is None else _kept(feature)
        passed = True

    with ExitStack() as hooks:
        for name in calls.modules:
            module = network.get_submodule(name)
            hooks.callback(module.register_forward_pre_hook(begin).remove)
            hooks.callback(module.register_forward_hook(keeper(name)).remove)
        hooks.callback(network.get_submodule(calls.cut).register_forward_pre_hook(reach, with_kwargs=True).remove)
        yield record
    if not passed:
        raise StudentError(f"the student did not call '{calls.cut}'; {_NOT_THE_SAME}")


@contextmanager
def replaying(branch: nn.Module, calls: EarlyCalls, record: Record) -> Iterator[None]:
    """Let a copy's early calls return what is recorded while the context lasts, for one forward.

    Raises:
        StudentError: the copy calls a module more or less often than the network did, or not the cut.
    """
    left = {name: deque(outputs) for name, outputs in record.outputs.items()}
    passed = False

    def replayer(name: str, compute: Callable[..., object]) -> Callable[..., object]:
        def replay(*arguments: object, **keywords: object) -> object:
            if passed:
                return compute(*arguments, **keywords)
            if not left[name]:
                raise StudentError(f"a copy calls {name} more often than the student did; {_NOT_THE_SAME}")
            # what follows may change it in place
            return mapped(left[name].popleft(), _kept)

        return replay

    def reach(_module: nn.Module, _arguments: Any) -> None:
        nonlocal passed
        unused = [name for name, outputs in left.items() if outputs]
        if unused and not passed:
            raise StudentError(f"a copy calls {', '.join(unused)} less often than the student did; {_NOT_THE_SAME}")
        passed = True

    with ExitStack() as changes:
        for name in calls.modules:
            module = branch.get_submodule(name)
            changes.enter_context(_computing(module, replayer(name, module.forward)))
        changes.callback(branch.get_submodule(calls.cut).register_forward_pre_hook(reach).remove)
        yield
    if not passed:
        raise StudentError(f"a copy of the student did not call '{calls.cut}'; {_NOT_THE_SAME}")


@contextmanager
def _computing(module: nn.Module, forward: Callable[..., object]) -> Iterator[None]:
    """Let a module compute something else; its parameters, names and attributes stay as they are."""
    own = vars(module).get("forward")
    vars(module)["forward"] = forward
    try:
        yield
    finally:
        del vars(module)["forward"]
        if own is not None:
            vars(module)["forward"] = own


def _kept(tensor: Tensor) -> Tensor:
    """A copy with its history: what follows may change the tensor in place. Branches compute in the default layout."""
    return tensor.clone(memory_format=torch.contiguous_format)


def _blank(tensor: Tensor) -> Tensor:
    """Zeros of its shape that take no memory until they are copied; numbers that are no fractions stay."""
    if not tensor.is_floating_point():
        return _kept(tensor)
    return tensor.new_zeros(()).expand(tensor.shape)
