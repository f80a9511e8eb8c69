"""A step's work by fewer launches, used only where they are seen to compute what torch's operations do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ecd_deploy.distill.convolution.triton import support
from ecd_deploy.errors import first_line, reraise_machine_fault
from ecd_deploy.training.fused.chains import fuse
from ecd_deploy.training.fused.operators import REFERENCES
from ecd_deploy.training.fused.program import Call, Program, given, perform, record

_ALIKE = 0.1  # of what a step changes in a tensor; a ReLU at its kink may move some of it
_ROUNDING = 4  # times that of torch's own result, where little is left of large numbers

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LighterWork:
    """Work, and how many operations less it has than it had."""

    run: Callable[[], None]
    saved: int = 0


def lightened(work: Callable[[], None], state: Sequence[Tensor], forget: Callable[[], None]) -> LighterWork:
    """Return the same work by fewer launches; the work itself where these cannot be had, and the log says why.

    Args:
        work: the same whenever it is done.
        state: every tensor that it changes in place; they are changed.
        forget: lets go of what the work leaves elsewhere.
    """
    try:
        before = [tensor.clone() for tensor in state]
        program = record(work)
        forget()
        lighter = fuse(program)
        fault = _find_lack(lighter) or _find_fault(lighter, state, before)
    except Exception as error:  # noqa: BLE001 (whatever a compiler raises: what does not run is not used)
        reraise_machine_fault(error)
        fault = first_line(error)
    if fault is None:
        return LighterWork(lighter.run, len(program.calls) - len(lighter.calls))
    _logger.warning("batch norms, sums and ReLUs of a step are launched one by one: %s", fault)
    return LighterWork(work)


def _find_lack(program: Program) -> str | None:
    fused = [call for call in program.calls if call.operator in REFERENCES]
    if not fused:
        return "it has no batch norm in training, in the default layout, that a sum or ReLU follows"
    return support.find_lack(next(iter(program.outside.values())).device, fused[0].results[0].dtype)


def _find_fault(program: Program, state: Sequence[Tensor], before: Sequence[Tensor]) -> str | None:
    """Do a program from the state before the work, and say where it does something else than the work did."""
    expected = [tensor.clone() for tensor in state]
    with torch.no_grad():
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)
    faults: list[str] = []

    def compared(call: Call, held: Mapping[int, Tensor]) -> tuple[Tensor, ...]:
        if call.operator not in REFERENCES or faults:
            return perform(call, held)
        results, fault = _compare(call, held)
        faults.extend([] if fault is None else [fault])
        return results

    program.run(compared)
    for found, wanted, old in zip(state, expected, before, strict=True):
        change = float((wanted.double() - old.double()).norm())
        if not _distance(found, wanted) <= _ALIKE * change + 1e-5 * float(old.double().norm()):
            faults.append(f"a tensor {tuple(found.shape)} is not what the step makes of it")
    return faults[0] if faults else None


def _compare(call: Call, held: Mapping[int, Tensor]) -> tuple[tuple[Tensor, ...], str | None]:
    """Do a launch, and say where it differs from torch's operations on the same memory."""
    arguments, _ = given(call, held)
    exact, rounded = _copied(arguments, torch.float64), _copied(arguments, None)
    results = perform(call, held)
    reference = REFERENCES[call.operator]
    # what a launch changes in place is compared as well
    found = _tensors((results, arguments))
    wanted, plain = _tensors((reference(*exact), exact)), _tensors((reference(*rounded), rounded))
    for one, other, usual in zip(found, wanted, plain, strict=True):
        limit = max(support.TOLERANCES[one.dtype] * float(other.norm()), _ROUNDING * _distance(usual, other))
        if not _distance(one, other) <= limit:  # also where it is not a number
            return results, f"{call.operator} differs from torch's own result by {_distance(one, other):.1e}"
    return results, None


def _copied(arguments: Any, dtype: torch.dtype | None) -> Any:
    return tree_map(
        lambda leaf: leaf.to(dtype or leaf.dtype, copy=True) if isinstance(leaf, Tensor) else leaf, arguments
    )


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).norm())
