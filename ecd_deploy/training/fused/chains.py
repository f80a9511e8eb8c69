"""Chains of a program that one launch can do: batch norm, addition and ReLU, and their gradients.

What is replaced are operations that torch's autograd has already chosen, whatever modules they come from, so that no
network is edited. A chain is replaced where nothing else reads what lies within it.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch

from ecd_deploy.training.fused.operators import DIFFERENTIATE, MOST_GRADIENTS, NORMALISE
from ecd_deploy.training.fused.program import Call, Program, View

_aten = torch.ops.aten
_NORMS: tuple[object, ...] = (_aten.native_batch_norm.default, _aten.cudnn_batch_norm.default)
_RELUS: tuple[object, ...] = (_aten.relu.default, _aten.relu_.default)
_SUMS: tuple[object, ...] = (_aten.add.Tensor, _aten.add_.Tensor)


def fuse(program: Program) -> Program:
    """Replace all chains that are found."""
    chains = _Chains(program)
    for number, call in enumerate(program.calls):
        if call.operator is _aten.threshold_backward.default:
            chains.replace_gradient(number)
    # afterwards: what cuDNN keeps for its own gradient alone is of no use where that is gone
    for number, call in enumerate(program.calls):
        if call.operator in _NORMS:
            chains.replace_norm(number)
    return replace(program, calls=tuple(call for call in chains.calls if call is not None))


@dataclass(frozen=True)
class _Norm:
    """A batch norm in training: what it is given."""

    features: View
    weight: View
    bias: View
    running_mean: View
    running_variance: View
    momentum: float
    eps: float


@dataclass(frozen=True)
class _NormGradient:
    """The gradient of a batch norm in training: what it is given."""

    gradient: View
    features: View
    weight: View
    mean: View
    inverse_deviation: View


class _Chains:
    """A program's operations while some are replaced; where one is gone there is None."""

    def __init__(self, program: Program) -> None:
        self.calls: list[Call | None] = list(program.calls)
        self._outside = program.outside
        self._touching: defaultdict[int, list[int]] = defaultdict(list)
        for number, call in enumerate(program.calls):
            for memory in call.touched:
                self._touching[memory].append(number)
        self._unused = count(1 + max((*self._touching, *program.outside), default=0))

    def replace_norm(self, number: int) -> None:
        """Replace the batch norm there and what follows it, if it is an addition or ReLU."""
        call = self._call(number)
        norm = _read_norm(call)
        if norm is None:
            return
        chain, current, added, rectifies = [number], call.results[0], None, False
        while not rectifies and (after := self._next(current, chain[-1])) is not None:
            following = self._call(after)
            operand = _added_to(following, current) if added is None else None
            if not (operand is not None or (following.operator in _RELUS and following.arguments == (current,))):
                break
            result = following.results[0]
            if not _lies_like(result, current) or not self._is_last(current, after, result):
                break
            if operand is None:
                rectifies = True
            else:
                added = operand
            chain.append(after)
            current = result
        given = [norm.features, norm.weight, norm.bias, norm.running_mean, norm.running_variance]
        statistics = [norm.running_mean, norm.running_variance, *call.results[1:3]]
        if len(chain) == 1 or not self._is_untouched(statistics, chain) or not self._is_unwritten(given, chain):
            return
        if added is not None and current.memory == added.memory and not self._is_owned(added):
            return
        if added is not None and not self._is_unwritten([added], chain[1:]):
            return
        if any(self._later(view, number) for view in call.results[3:]):
            return
        self._put(
            chain,
            chain[-1],
            Call(
                NORMALISE,
                (*given, added, norm.momentum, norm.eps, rectifies),
                {},
                (current, *call.results[1:3]),
            ),
        )

    def replace_gradient(self, number: int) -> None:
        """Replace the gradient of a ReLU there, if that of a batch norm follows, and sums before and after them."""
        call = self._call(number)
        gradient, output, threshold = call.arguments
        passed = call.results[0]
        after = next((place for place in self._later(passed, number) if self._is_gradient_of(place, passed)), None)
        if after is None or threshold != 0 or not _lies_like(gradient, output) or passed.memory == gradient.memory:
            return
        norm = _read_norm_gradient(self._call(after))
        if norm is None or not all(view.is_contiguous for view in (gradient, output, norm.features)):
            return
        chain = [number, after]
        given = [output, norm.features, norm.weight, norm.mean, norm.inverse_deviation]
        if not self._is_unwritten([*given, passed], chain):
            return
        passes = len(self._touching[passed.memory]) > 2
        gradients, sums = self._parts(gradient, number)
        chain += sums
        result, beside = self._call(after).results[0], None
        if (ending := self._sum_after(result, after, number)) is not None:
            place, beside = ending
            result = self._call(place).results[0]
            chain.append(place)
        empty = View(next(self._unused), passed.dtype, (0,), (1,), 0)
        results = (result, *self._call(after).results[1:3], passed if passes else empty)
        arguments = (gradients, *given, beside, passes)
        self._put(chain, number, Call(DIFFERENTIATE, arguments, {}, results))

    def _parts(self, gradient: View, number: int) -> tuple[list[View], list[int]]:
        """What adds up to a gradient that is given at a place, for nothing but that; and where the sums are."""
        parts, sums = [gradient], list[int]()
        while len(parts) < MOST_GRADIENTS:
            found = [(part, place) for part in parts if (place := self._sum_before(part, number, sums)) is not None]
            if not found:
                break
            part, place = found[0]
            at = parts.index(part)
            parts[at : at + 1] = _operands(self._call(place)) or ()
            sums.append(place)
        return parts, sums

    def _sum_before(self, total: View, number: int, sums: list[int]) -> int | None:
        """Where the sum is that made a part of a gradient, if nothing else reads it; `sums` are those behind it."""
        touching = [at for at in self._touching[total.memory] if self.calls[at] is not None and at not in sums]
        places = [at for at in touching if at < number]
        if not places or touching[-1] > number or total.memory in self._outside:
            return None
        call = self._call(places[-1])
        if call.results != (total,) or (operands := _operands(call)) is None:
            return None
        is_own = operands[0].memory == total.memory
        if (not is_own and len(places) > 1) or operands[1].memory == total.memory:
            return None
        return places[-1] if self._is_unwritten(list(operands), [places[-1], number, *sums]) else None

    def _sum_after(self, result: View, after: int, number: int) -> tuple[int, View] | None:
        """The sum that takes a result, and nothing else does, with what is there by then; and that other part."""
        place = self._next(result, after)
        if place is None or (other := _added_to(self._call(place), result)) is None:
            return None
        total = self._call(place).results[0]
        if not _lies_like(total, result) or not self._is_last(result, place, total):
            return None
        if total.memory == other.memory and not self._is_owned(other):
            return None
        ready = other.memory in self._outside or self._touching[other.memory][0] < number
        # what is between must not read the other part where it becomes the sum, nor change it
        between = [at for at in self._later(other, number) if at < place]
        if not ready or (between and total.memory == other.memory) or not self._is_unwritten([other], [number, place]):
            return None
        return place, other

    def _is_gradient_of(self, place: int, passed: View) -> bool:
        norm = _read_norm_gradient(self._call(place))
        return norm is not None and norm.gradient == passed

    def _is_last(self, view: View, place: int, result: View) -> bool:
        """Whether nothing reads a tensor after a place, but for what was written into it there."""
        return result.memory == view.memory or not self._later(view, place)

    def _is_owned(self, view: View) -> bool:
        """Whether a memory is the program's own, and always seen as one tensor, so that another may take its place."""
        if view.memory in self._outside or view.offset != 0:
            return False
        made = self._call(self._touching[view.memory][0])
        return all(part.count == view.count for part in made.results if part.memory == view.memory)

    def _is_unwritten(self, views: list[View], chain: list[int]) -> bool:
        """Whether nothing but a chain writes some tensors between its first and its last operation."""
        memory = {view.memory for view in views}
        between = [at for one in memory for at in self._touching[one] if min(chain) < at < max(chain)]
        return not any(memory & self._call(at).written for at in between if at not in chain and self.calls[at])

    def _is_untouched(self, views: list[View], chain: list[int]) -> bool:
        places = [at for view in views for at in self._touching[view.memory] if self.calls[at] is not None]
        return not any(min(chain) < at < max(chain) for at in places)

    def _next(self, view: View, place: int) -> int | None:
        return next(iter(self._later(view, place)), None)

    def _later(self, view: View, place: int) -> list[int]:
        return [at for at in self._touching[view.memory] if at > place and self.calls[at] is not None]

    def _call(self, number: int) -> Call:
        call = self.calls[number]
        assert call is not None  # noqa: S101 (for the type checker: only what is there is looked at)
        return call

    def _put(self, chain: list[int], place: int, call: Call) -> None:
        for number in chain:
            self.calls[number] = None
        self.calls[place] = call
        for memory in call.touched:
            if place not in self._touching[memory]:
                insort(self._touching[memory], place)


def _read_norm(call: Call) -> _Norm | None:
    """What a batch norm is given, None if it is not one in training with all that a launch needs."""
    if call.operator not in _NORMS:
        return None
    features, weight, bias, running_mean, running_variance, trains, momentum, eps = call.arguments
    views = (features, weight, bias, running_mean, running_variance)
    if not trains or not all(isinstance(view, View) and view.is_contiguous for view in views):
        return None
    return _Norm(*views, momentum, eps) if features.dtype == call.results[0].dtype else None


def _read_norm_gradient(call: Call) -> _NormGradient | None:
    arguments = call.arguments
    if call.operator is _aten.native_batch_norm_backward.default:
        gradient, features, weight, _, _, mean, inverse_deviation, trains, _, wanted = arguments
        if not trains or not all(wanted):
            return None
    elif call.operator is _aten.cudnn_batch_norm_backward.default:
        features, gradient, weight, _, _, mean, inverse_deviation, *_ = arguments
    else:
        return None
    views = (gradient, features, weight, mean, inverse_deviation)
    if not all(isinstance(view, View) and view.is_contiguous for view in views):
        return None
    return _NormGradient(*views) if gradient.dtype == features.dtype else None


def _operands(call: Call) -> tuple[View, View] | None:
    """Both parts of a plain sum of two tensors that lie alike."""
    if call.operator not in _SUMS or call.options.get("alpha", 1) != 1:
        return None
    first, second = call.arguments
    return (first, second) if isinstance(second, View) and _lies_like(first, second) else None


def _added_to(call: Call, view: View) -> View | None:
    """What a sum adds to a tensor, if it does and to this one only."""
    operands = _operands(call)
    if operands is None or view not in operands or operands[0] == operands[1]:
        return None
    return operands[1] if operands[0] == view else operands[0]


def _lies_like(one: Any, other: View) -> bool:
    return isinstance(one, View) and one == replace(other, memory=one.memory)
