"""ONE: branches of the student that share its early stages, and their gated ensemble as the teacher.

Lan et al. (2018), <https://arxiv.org/abs/1806.04606>.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ecd_deploy.baselines.replay import EarlyCalls, Record, find_early_calls, recording, replaying
from ecd_deploy.compat.torch import is_normalisation
from ecd_deploy.distill.convolution.dynamic_conv import fresh_like
from ecd_deploy.distill.model import TrainingModel
from ecd_deploy.distill.outputs import TrainingOutputs
from ecd_deploy.distill.student.structure import find_structure
from ecd_deploy.errors import StudentError, reraise_machine_fault

if TYPE_CHECKING:
    from ecd_deploy.distill.student.structure import StudentStructure

# Of the largest logit. Copies compute in another memory layout than the student, which rounds otherwise; a value that
# is missing shows far above that.
_TOLERANCE = 1e-3


class BranchedModel(TrainingModel):
    """A student, further copies of its last stage and classifier, and a gate that weighs their logits.

    The student is the first branch, and what is deployed. Each copy starts from values drawn anew. A copy is
    the whole network with the blocks before its last stage taken out: up to there its modules return what the
    student's did in the same forward (see `replay`), so that any student can be branched without editing it. What
    else is left before (the stem, layers between stages) is neither run nor trained.

    Attributes:
        student: the network given.
        branches: the copies.
        gate: from the shared feature, averaged over its pixels, to a weight a branch.
    """

    def __init__(self, student: nn.Module, branches: int = 3, example: Tensor | None = None) -> None:
        """Make the copies.

        Args:
            student: images (N, C, H, W) -> logits (N, classes).
            branches: the student among them.
            example: images (N, C, H, W) to find the structure with; by default the size is guessed.

        Raises:
            StudentError: the student cannot be treated, or has fewer than two stages.
        """
        super().__init__()
        structure = find_structure(student, example)
        if len(structure.stages) < 2:
            raise StudentError("method.name 'one' branches the last stage off, and the student has only one")
        like = next(student.parameters())
        plan = _plan(student, structure, like)
        self._calls = plan.calls
        self.student = student
        self.branches = nn.ModuleList(_branch(student, plan) for _ in range(branches - 1))
        self.gate = Gate(plan.channels, branches).to(device=like.device, dtype=like.dtype)

    def auxiliary(self) -> Mapping[str, nn.Module]:
        """Return the copies and the gate."""
        return {"branches": self.branches, "gate": self.gate}

    def forward(self, images: Tensor) -> TrainingOutputs:
        """Return the logits of the student, of the ensemble as the teacher, and in training mode of each branch."""
        with recording(self.student, self._calls) as record:
            student: Tensor = self.student(images.contiguous(memory_format=self.layout))
        shared = _feature(record, self._calls.cut)
        others = []
        for branch in self.branches:
            with replaying(branch, self._calls, record):
                others.append(branch(images.contiguous()))
        logits = torch.stack([student, *others])
        ensemble = torch.einsum("nb,bnc->nc", self.gate(shared), logits)
        return TrainingOutputs(student=student, teacher=ensemble, branches=tuple(others) if self.training else ())


class Gate(nn.Module):
    """Weights (N, branches) that sum to one, from a feature (N, C, H, W): linear, norm, ReLU, softmax as in ONE."""

    def __init__(self, channels: int, branches: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, branches)
        self.norm = nn.BatchNorm1d(branches)

    def forward(self, feature: Tensor) -> Tensor:
        """Weigh."""
        scores: Tensor = self.norm(self.linear(feature.mean(dim=(2, 3))))
        return torch.softmax(scores.relu(), dim=1)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """How a student is branched.

    Attributes:
        calls: before the last stage's first block.
        removed: names of the blocks that copies do without.
        trained: names of the parameters that a copy's logits depend on.
        channels: of the feature that the last stage gets.
    """

    calls: EarlyCalls
    removed: tuple[str, ...]
    trained: frozenset[str]
    channels: int


class _LeftOut(nn.Module):
    """Stands in a copy for a block that only the student runs."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def forward(self, *_arguments: object, **_keywords: object) -> Tensor:
        """Refuse.

        Raises:
            StudentError: always.
        """
        raise StudentError(
            f"method.name 'one' leaves '{self._name}' out of the student's copies, and the student calls it another "
            "way in training mode than in evaluation mode"
        )


def _plan(student: nn.Module, structure: StudentStructure, like: Tensor) -> _Plan:
    """Try on two images, without drawing from torch's generator, how copies of the student can be run.

    Raises:
        StudentError: a copy with the student's own values cannot be run, or gives other logits than the student.
    """
    *early, last = structure.stages
    cut = last.blocks[0].name
    before = [block.name for stage in early for block in stage.blocks]
    images = torch.rand(2, *structure.image_shape, generator=torch.Generator().manual_seed(0)).to(like)
    try:
        return _tried(student, before, cut, images)
    except StudentError:
        raise
    except Exception as error:
        reraise_machine_fault(error)
        raise StudentError(
            f"method.name 'one' cannot branch the student off before '{cut}', its last stage's first block: "
            f"{type(error).__name__}: {error}; other methods do not cut the student"
        ) from error


def _tried(student: nn.Module, before: list[str], cut: str, images: Tensor) -> _Plan:
    whole = _observable(copy.deepcopy(student))
    calls = find_early_calls(whole, cut, images)
    removed = tuple(name for name in before if name not in calls.later)
    branch = _observable(_without(student, removed))
    with torch.no_grad(), recording(whole, calls) as record:
        expected = whole(images)
    channels = _feature(record, cut).shape[1]
    leaves = record.to_leaves()
    parameters = {name: parameter for name, parameter in branch.named_parameters() if parameter.requires_grad}
    with torch.enable_grad(), replaying(branch, calls, record):
        value = branch(images).sum()
    tensors = (*parameters.values(), *(leaf for _, leaf in leaves))
    reached = [gradient is not None for gradient in torch.autograd.grad(value, tensors, allow_unused=True)]
    trained = frozenset(name for name, counts in zip(parameters, reached, strict=False) if counts)
    counting = (name for (name, _), counts in zip(leaves, reached[len(parameters) :], strict=True) if counts)
    # what has no gradient can still count, by a value that is detached or compared
    for needed in (frozenset(counting), calls.needed):
        calls = replace(calls, needed=needed)
        with torch.no_grad(), recording(whole, calls) as record:
            whole(images)
        with torch.no_grad(), replaying(branch, calls, record):
            found = branch(images)
        if torch.allclose(found, expected, rtol=0, atol=_TOLERANCE * float(expected.abs().max())):
            return _Plan(calls=calls, removed=removed, trained=trained, channels=channels)
    raise StudentError(
        f"method.name 'one' cannot branch the student off before '{cut}', its last stage's first block: a module that "
        "is called before does more than return something, such as an activation in place whose result is not used, "
        "or a value that it keeps; let the student use what its modules return"
    )


def _feature(record: Record, cut: str) -> Tensor:
    if record.feature is None:
        raise StudentError(
            f"method.name 'one' weighs the branches by what the last stage gets, and its first block, '{cut}', is not "
            "called with a tensor (N, C, H, W), nor with a tuple or list that holds one; let the student give it one"
        )
    return record.feature


def _observable(network: nn.Module) -> nn.Module:
    """Put into evaluation mode, save batch norm: by statistics not yet learned, logits would hardly show the images."""
    for module in network.eval().modules():
        if is_normalisation(module):
            module.train()
    return network


def _without(student: nn.Module, removed: tuple[str, ...]) -> nn.Module:
    branch = copy.deepcopy(student)
    for name in removed:
        branch.set_submodule(name, _LeftOut(name))
    return branch


def _branch(student: nn.Module, plan: _Plan) -> nn.Module:
    """Copy the student with values drawn anew, without early blocks, and freeze what its logits do not depend on."""
    branch = _without(student, plan.removed)
    with torch.no_grad():
        for parameter in branch.parameters():
            parameter.copy_(fresh_like(parameter))
    for module in branch.modules():
        if is_normalisation(module):
            module.reset_running_stats()
    for name, parameter in branch.named_parameters():
        parameter.requires_grad_(name in plan.trained)
    return branch
