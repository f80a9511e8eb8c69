"""Check: the logits of an image are its own, whatever else is in its batch.

A batch norm without running statistics, `x - x.mean(0)` or a branch on the batch size pass every other check; on a
device, where images come one at a time, their accuracy is another one than was measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ecd_deploy.distill.student.locate import described, first_differing, watched
from ecd_deploy.errors import SplitError, reraise_machine_fault
from ecd_deploy.split.joint import student_logits
from ecd_deploy.split.results import BatchResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from ecd_deploy.distill import TrainingModel

TOLERANCE = 1e-3
"""How far a logit may be off, as a share of the largest: for other batch sizes, other kernels round otherwise."""

_ODD = 3
_WAY_OUT = "compute each image by itself (batch norm with running statistics, no mean or branch over the batch)"


@dataclass(frozen=True)
class Spread:
    """How far an image's logits move with its batch.

    Attributes:
        batches: that were compared with the batch of all images.
        largest: difference of a logit, as a share of the largest absolute logit.
        worst: the batch in which that was, in words.
    """

    batches: int
    largest: float
    worst: str


def batch_spread(forward: Callable[[Tensor], Tensor], images: Tensor, measured: Tensor | None = None) -> Spread:
    """Compare the logits of images in one batch with those of each alone, in odd batches and in another order.

    Args:
        forward: images (N, C, H, W) -> logits (N, classes).
        images: (N, C, H, W), that differ from each other.
        measured: logits (N, classes) that the same images had in other batches, to compare with instead.
    """
    whole = forward(images) if measured is None else measured
    scale = float(whole.abs().max()) or 1.0
    batches, largest, worst = 0, 0.0, "no batch"
    for chosen, words in _batches(len(images), whole=measured is not None):
        expected, found = whole[chosen], forward(images[chosen])
        batches += 1
        difference = float((found - expected).abs().max()) / scale if found.shape == expected.shape else float("inf")
        if difference != difference:  # NaN in one of them
            difference = float("inf")
        if difference > largest:
            largest, worst = difference, words
    return Spread(batches, largest, worst)


def check_batch(model: TrainingModel, images: Tensor) -> BatchResult:
    """Compare the student's logits of single images, odd batches and another order; call within `preserved(model)`."""
    student = model.student
    try:
        with torch.no_grad():
            spread = batch_spread(lambda chosen: student_logits(student, chosen), images)
        problem = dependence(student, images, spread)
    except SplitError as error:
        spread, problem = Spread(0, 0.0, ""), str(error)
    return BatchResult(
        findings=() if problem is None else (problem,),
        passed=problem is None,
        batches_compared=spread.batches,
        largest_difference=None if spread.largest == float("inf") else spread.largest,
    )


def dependence(student: nn.Module, images: Tensor, spread: Spread) -> str | None:
    """Say by which module the logits of an image depend on the other images; None if they do not.

    Where no logit moves, as untrained weights can hide it, the gradient of an image's logits by the others tells.

    Args:
        student: in evaluation mode.
        images: that the spread is of.
        spread: of the student's logits.
    """
    if spread.largest <= TOLERANCE:
        try:
            name, found = _first_mixing(student, images)
        except RuntimeError as error:
            reraise_machine_fault(error)
            first = next(iter(str(error).strip().splitlines()), "")
            return f"the gradient of the logits by the images cannot be computed: {first}"
        if not found:
            return None
        return (
            "the logits of an image depend on the other images of its batch: they have a gradient by them, first in "
            f"{described(student, name)}; {_WAY_OUT}"
        )
    with torch.no_grad(), watched(student) as alone:
        student(images[:1])
    with torch.no_grad(), watched(student) as together:
        student(torch.cat([images, images]))
    name = first_differing(alone, together, _differs)
    how = "are not finite" if math.isinf(spread.largest) else f"differ by {spread.largest:.2g} of the largest logit"
    return (
        f"the logits of an image depend on the other images of its batch: {spread.worst} they {how}, first in "
        f"{described(student, name)}; {_WAY_OUT}"
    )


def _first_mixing(student: nn.Module, images: Tensor) -> tuple[str | None, bool]:
    """The first module in whose output an image has a gradient by others, None for the student; and whether any has."""
    given = images.detach().clone().requires_grad_()
    with torch.enable_grad(), watched(student) as seen:
        logits = student_logits(student, given)
    if not _mixes(logits, given):
        return None, False
    for name, output in seen.calls:
        if output.dim() and len(output) == len(given) and _mixes(output, given):
            return name, True
    return None, True


def _mixes(output: Tensor, images: Tensor) -> bool:
    if len(images) < 2 or not output.requires_grad or not output.is_floating_point():
        return False
    gradient = torch.autograd.grad(output[0].sum(), images, retain_graph=True, allow_unused=True)[0]
    return gradient is not None and bool(gradient[1:].any())


def _differs(alone: Tensor, together: Tensor) -> bool:
    if not together.dim() or alone.shape[1:] != together.shape[1:] or len(alone) != 1:
        return False
    scale = float(together.abs().max()) or 1.0
    return float((together[:1] - alone).abs().max()) > TOLERANCE * scale


def _batches(count: int, *, whole: bool) -> Iterator[tuple[Tensor, str]]:
    order = torch.arange(count)
    if whole:
        yield order, f"in a batch of {count}"
    for index in range(count):
        yield order[index : index + 1], "alone"
    for start in range(0, count, _ODD):
        yield order[start : start + _ODD], f"in a batch of {min(_ODD, count - start)}"
    yield order.flip(0), "in another order"
    yield order.repeat(2), f"in a batch of {2 * count}"
