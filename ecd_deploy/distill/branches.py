"""ONE: branches of the student that share its early stages, and their gated ensemble as the teacher.

Lan et al. (2018), <https://arxiv.org/abs/1806.04606>.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ecd_deploy.distill.dynamic_conv import fresh_like
from ecd_deploy.distill.model import TrainingModel
from ecd_deploy.distill.structure import find_structure
from ecd_deploy.errors import StudentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ecd_deploy.distill.probe import FeatureMap


class BranchedModel(TrainingModel):
    """A student, further copies of its last stage and classifier, and a gate that weighs their logits.

    The student is the first branch, and what is deployed. Each copy starts from values drawn anew. A copy is
    the whole network with the blocks before its last stage taken out, whose last stage gets the student's feature,
    so that any student can be branched without editing it; what is left before (the stem) runs for nothing and
    is not trained.

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
        *early, last = structure.stages
        self._cut = last.blocks[0].name
        shared = early[-1].blocks[-1].output
        self.student = student
        before = [block.name for stage in early for block in stage.blocks]
        like = next(student.parameters())
        image = torch.zeros(1, *structure.image_shape, device=like.device, dtype=like.dtype)
        copies = [_branch(student, before, self._cut, shared, image) for _ in range(branches - 1)]
        self.branches = nn.ModuleList(copies)
        self.gate = Gate(shared.channels, branches).to(device=like.device, dtype=like.dtype)

    def auxiliary(self) -> Mapping[str, nn.Module]:
        """Return the copies and the gate."""
        return {"branches": self.branches, "gate": self.gate}

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the student's logits and the ensemble's; in training mode the other branches' follow."""
        with _taking(self.student.get_submodule(self._cut)) as taken:
            student: Tensor = self.student(images.contiguous(memory_format=self.layout))
        if len(taken) != 1:
            raise StudentError(f"'{self._cut}' must be called once with a feature (N, C, H, W) to be branched off")
        shared = taken[0].contiguous()
        others = []
        for branch in self.branches:
            with _giving(branch.get_submodule(self._cut), shared):
                others.append(branch(images.contiguous()))
        logits = torch.stack([student, *others])
        ensemble = torch.einsum("nb,bnc->nc", self.gate(shared), logits)
        return (student, ensemble, *others) if self.training else (student, ensemble)


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


def _branch(student: nn.Module, before: list[str], cut: str, feature: FeatureMap, image: Tensor) -> nn.Module:
    """Copy the student with values drawn anew, without the blocks before the cut, and freeze what nothing reaches."""
    branch = copy.deepcopy(student)
    for name in before:
        branch.set_submodule(name, nn.Identity())
    with torch.no_grad():
        for parameter in branch.parameters():
            parameter.copy_(fresh_like(parameter))
    for module in branch.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.reset_running_stats()
    training = branch.training
    parameters = tuple(branch.parameters())
    shared = image.new_ones(1, feature.channels, *feature.resolution)
    with _giving(branch.eval().get_submodule(cut), shared), torch.enable_grad():
        reached = torch.autograd.grad(branch(image).sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, reached, strict=True):
        parameter.requires_grad_(gradient is not None)
    return branch.train(training)


@contextmanager
def _taking(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what the module is called with."""
    taken: list[Tensor] = []

    def take(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if arguments and isinstance(arguments[0], Tensor) and arguments[0].ndim == 4:
            # the block may change it in place
            taken.append(arguments[0].clone())

    handle = module.register_forward_pre_hook(take)
    try:
        yield taken
    finally:
        handle.remove()


@contextmanager
def _giving(module: nn.Module, feature: Tensor) -> Iterator[None]:
    """Call the module with this feature, whatever it is called with."""

    def give(_module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return (feature.clone(), *arguments[1:])

    handle = module.register_forward_pre_hook(give)
    try:
        yield
    finally:
        handle.remove()
