"""Chains of a program that one launch can do: batch norm, additions, ReLU and means, and their gradients.

What is replaced are operations that torch's autograd has already chosen, whatever modules they come from, so that no
network is edited. A chain is replaced where nothing else reads what lies within it.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from dataclasses import replace
from itertools import count

import torch

from ecd_deploy.training.fused.calls import (
    NORMS,
    RELUS,
    added_to,
    as_matrix,
    lies_like,
    parts_of,
    read_norm,
    read_norm_gradient,
    takes_means,
)
from ecd_deploy.training.fused.operators import DIFFERENTIATE, MOST_GRADIENTS, NORMALISE
from ecd_deploy.training.fused.program import Call, Program, View

_aten = torch.ops.aten


def fuse(program: Program) -> Program:
    """Replace all chains that are found."""
    chains = _Chains(program)
    for number, call in enumerate(program.calls):
        if call.operator is _aten.threshold_backward.default:
            chains.replace_gradient(number)
    # afterwards: what cuDNN keeps for its own gradient alone is of no use where that is gone
    for number, call in enumerate(program.calls):
        if call.operator in NORMS:
            chains.replace_norm(number)
    return replace(program, calls=tuple(call for call in chains.calls if call is not None))


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
        norm = read_norm(call)
        if norm is None:
            return
        chain, current, added, rectifies = [number], call.results[0], None, False
        while not rectifies and (after := self._next(current, chain[-1])) is not None:
            following = self._call(after)
            operand = added_to(following, current) if added is None else None
            if not (operand is not None or (following.operator in RELUS and following.arguments == (current,))):
                break
            result = following.results[0]
            if not lies_like(result, current) or not self._is_last(current, after, result):
                break
            if operand is None:
                rectifies = True
            else:
                added = operand
            chain.append(after)
            current = result
        behind, total = self._find_behind(current, chain[-1]) if rectifies else (None, None)
        if total is not None:
            chain.append(self._touching[total.memory][0])
        given = [norm.features, norm.weight, norm.bias, norm.running_mean, norm.running_variance]
        statistics = [norm.running_mean, norm.running_variance, *call.results[1:3]]
        if len(chain) == 1 or not self._is_untouched(statistics, chain) or not self._is_unwritten(given, chain):
            return
        if added is not None and not self._may_wait(added, current, chain):
            return
        if any(self._later(view, number) for view in call.results[3:]):
            return
        means = self._find_means(total or current, chain[-1])
        pooled = None if means is None else as_matrix(self._call(means).results[0])
        results = (current, *call.results[1:3], total or self._empty(current), pooled or self._empty(current))
        arguments = (*given, added, behind, norm.momentum, norm.eps, rectifies, pooled and pooled.dtype)
        replaced = chain if means is None else [*chain, means]
        self._put(replaced, chain[-1], Call(NORMALISE, arguments, {}, results))

    def replace_gradient(self, number: int) -> None:
        """Replace the gradient of a ReLU there, if that of a batch norm follows, and sums before and after them."""
        call = self._call(number)
        gradient, output, threshold = call.arguments
        passed = call.results[0]
        after = next((place for place in self._later(passed, number) if self._is_gradient_of(place, passed)), None)
        if after is None or threshold != 0 or not lies_like(gradient, output) or passed.memory == gradient.memory:
            return
        norm = read_norm_gradient(self._call(after))
        if norm is None or not all(view.is_contiguous for view in (gradient, output, norm.features)):
            return
        chain = [number, after]
        given = [output, norm.features, norm.weight, norm.mean, norm.inverse_deviation]
        if not self._is_unwritten([*given, passed], chain):
            return
        passes = len(self._touching[passed.memory]) > 2
        result, beside = self._call(after).results[0], None
        if (ending := self._sum_after(result, after, number)) is not None:
            place, beside = ending
            result = self._call(place).results[0]
            chain.append(place)
        # what is added to the result cannot come from the launch itself
        gradients, sums = self._parts(gradient, number, may_stay=beside is None or beside.memory != gradient.memory)
        chain += sums
        stays = bool(sums and self._later(gradient, number))
        of_norm = self._call(after).results[1:3]
        ends = passed if passes else self._empty(passed), gradient if stays else self._empty(passed)
        results, arguments = (result, *of_norm, *ends), (gradients, *given, beside, passes, stays)
        self._put(chain, number, Call(DIFFERENTIATE, arguments, {}, results))

    def _may_wait(self, added: View, result: View, chain: list[int]) -> bool:
        """Whether what a chain adds is the same at its end, and free where the result takes its place."""
        return self._is_unwritten([added], chain[1:]) and (result.memory != added.memory or self._is_owned(added))

    def _find_behind(self, output: View, place: int) -> tuple[View, View] | tuple[None, None]:
        """What is added to an output next, and the sum, if it has a memory of its own."""
        after = self._next(output, place)
        behind = None if after is None else added_to(self._call(after), output)
        if after is None or behind is None:
            return None, None
        total = self._call(after).results[0]
        is_new = total.memory not in self._outside and self._touching[total.memory][0] == after
        return (behind, total) if is_new and lies_like(total, output) else (None, None)

    def _find_means(self, features: View, place: int) -> int | None:
        """Where the means of features over their places are taken after a place, if they are the same by then."""
        for after in self._later(features, place):
            call = self._call(after)
            if takes_means(call, features):
                memory = call.results[0].memory
                is_new = memory not in self._outside and self._touching[memory][0] == after
                return after if is_new and self._is_unwritten([features], [place, after]) else None
        return None

    def _empty(self, like: View) -> View:
        return View(next(self._unused), like.dtype, (0,), (1,), 0)

    def _parts(self, gradient: View, number: int, *, may_stay: bool) -> tuple[list[View], list[int]]:
        """What adds up to a gradient that is given at a place, and where the sums are.

        The gradient alone may be read later too, if it `may_stay`; the sums within it are for nothing else.
        """
        parts, sums = [gradient], list[int]()
        while len(parts) < MOST_GRADIENTS:
            places = [self._sum_before(part, number, sums, may_stay and not sums) for part in parts]
            found = [(part, place) for part, place in zip(parts, places, strict=True) if place is not None]
            if not found:
                break
            part, place = found[0]
            at = parts.index(part)
            parts[at : at + 1] = parts_of(self._call(place)) or ()
            sums.append(place)
        return parts, sums

    def _sum_before(self, total: View, number: int, sums: list[int], may_stay: bool) -> int | None:
        """Where the sum is that made a part of a gradient, if nothing else reads it; `sums` are those behind it.

        Where it `may_stay` something may read it later.
        """
        touching = [at for at in self._touching[total.memory] if self.calls[at] is not None and at not in sums]
        places = [at for at in touching if at < number]
        is_read_later = bool(touching) and touching[-1] > number
        if not places or (is_read_later and not may_stay) or total.memory in self._outside:
            return None
        call = self._call(places[-1])
        if call.results != (total,) or (operands := parts_of(call)) is None:
            return None
        is_own = operands[0].memory == total.memory
        if (is_read_later if is_own else len(places) > 1) or operands[1].memory == total.memory:
            return None
        return places[-1] if self._is_unwritten(list(operands), [places[-1], number, *sums]) else None

    def _sum_after(self, result: View, after: int, number: int) -> tuple[int, View] | None:
        """The sum that takes a result, and nothing else does, with what is there by then; and that other part."""
        place = self._next(result, after)
        if place is None or (other := added_to(self._call(place), result)) is None:
            return None
        total = self._call(place).results[0]
        if not lies_like(total, result) or not self._is_last(result, place, total):
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
        norm = read_norm_gradient(self._call(place))
        return norm is not None and norm.gradient == passed

    def _is_last(self, view: View, place: int, result: View) -> bool:
        """Whether nothing reads a tensor after a place, but for what was written into it there."""
        return result.memory == view.memory or not self._later(view, place)

    def _is_owned(self, view: View) -> bool:
        """Whether a memory is the program's own, and always seen as one tensor, so that another may take its place."""
        if view.memory in self._outside or view.offset != 0:
            return False
        made = next(call for at in self._touching[view.memory] if (call := self.calls[at]) is not None)
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
