"""A student that learns from a teacher trained before: the two-stage methods (paper, equation 1 and table 11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ecd_deploy.baselines import library_transfers
from ecd_deploy.baselines.contrast import Contrast
from ecd_deploy.baselines.knowledge import Knowledge, KnowledgeReader
from ecd_deploy.baselines.transfers import Hint, NeuronSelectivity, SimilarityPreservation, SoftLabels, Transfer
from ecd_deploy.distill.model import JointModel, PlainModel, TrainingModel
from ecd_deploy.distill.outputs import TrainingOutputs

if TYPE_CHECKING:
    from ecd_deploy.recipe.method import PretrainedConfig, PretrainedLoss

_HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class TrainedTeacher:
    """A trained network, images (N, C, H, W) -> logits (N, classes), and the labels (images,) of the training split."""

    network: nn.Module
    labels: Tensor


class FrozenTeacher(nn.Module):
    """A network that nothing trains, and that stays in evaluation mode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> FrozenTeacher:
        """Stay in evaluation mode."""
        del mode
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, classes)."""
        logits: Tensor = self.network(images)
        return logits


class DistilledModel(TrainingModel):
    """A training model whose student also learns from a frozen teacher.

    In evaluation a student without another teacher has this one. In training mode, given the images' indices, the
    sum of the losses with their factors is `transfer`.

    Attributes:
        joint: the student, with a generated teacher or without.
        pretrained: the frozen teacher.
        transfers: the losses, with what they learn.
    """

    def __init__(
        self, joint: JointModel | PlainModel, trained: TrainedTeacher, config: PretrainedConfig, example: Tensor
    ) -> None:
        """Build the losses for the features that both networks show.

        Args:
            joint: what is trained; it becomes a part of this model, which takes the student over.
            trained: the teacher; it is frozen in place.
            config: which losses.
            example: images (N, C, H, W).

        Raises:
            StudentError: a loss cannot compare these networks.
            UsageError: torchdistill is needed and not installed.
        """
        super().__init__()
        student = joint.student
        self.student = student
        # so that each tensor of the student has one name, as in every model
        del joint.student
        self.joint = joint
        self.pretrained = FrozenTeacher(trained.network)
        self._of_student = KnowledgeReader(student, example)
        self._of_teacher = KnowledgeReader(trained.network, example)
        if "fsp" in config.losses:
            for reader in (self._of_student, self._of_teacher):
                reader.require_inputs("fsp")
        self._factors = {str(loss): factor for loss, factor in config.weighted_losses}
        self.transfers = nn.ModuleDict(
            {
                loss: _transfer(loss, self._of_student.shapes, self._of_teacher.shapes, trained, config, factor)
                for loss, factor in config.weighted_losses
            }
        )
        self.transfers.to(next(student.parameters()).device)

    def auxiliary(self) -> Mapping[str, nn.Module]:
        """Return everything but the student."""
        return {**self.joint.auxiliary(), "pretrained": self.pretrained, "transfers": self.transfers}

    def forward(self, images: Tensor, indices: Tensor | None = None) -> TrainingOutputs:
        """Return the joint model's outputs; see above for what is added."""
        self.joint.layout = self.layout
        if not self.training or indices is None:
            outputs = self.joint.with_student(self.student, images)
            return outputs if outputs.teacher is not None else outputs._replace(teacher=self.pretrained(images))
        with self._of_student.reading(self.student) as own:
            outputs = self.joint.with_student(self.student, images)
        own.logits = outputs.student
        with torch.no_grad(), self._of_teacher.reading(self.pretrained.network) as other:
            logits = self.pretrained(images)
        other.logits = logits
        with torch.autocast(images.device.type, enabled=False):
            own, other = _in_full(own), _in_full(other).detached()
            terms = [self._factors[name] * transfer(own, other, indices) for name, transfer in self.transfers.items()]
        return outputs._replace(transfer=torch.stack(terms).sum())


_BUILDERS: dict[str, Callable[[Knowledge, Knowledge], Transfer]] = {
    "fitnet": Hint,
    "at": library_transfers.attention_transfer,
    "fsp": library_transfers.FlowOfSolution,
    "sp": lambda _student, _teacher: SimilarityPreservation(),
    "vid": library_transfers.VariationalInformation,
    "pkt": lambda _student, _teacher: library_transfers.probabilistic_transfer(),
    "nst": NeuronSelectivity,
    "cc": library_transfers.CorrelationCongruence,
}


def _transfer(
    loss: PretrainedLoss,
    student: Knowledge,
    teacher: Knowledge,
    trained: TrainedTeacher,
    config: PretrainedConfig,
    factor: float,
) -> Transfer:
    if loss == "kd":
        return SoftLabels(config.temperature)
    if loss == "rkd":
        return library_transfers.relational(*config.rkd)
    if loss == "ft":
        return library_transfers.FactorTransfer(student, teacher, factor)
    if loss == "crd":
        return Contrast(student, teacher, trained.labels, config.negatives)
    return _BUILDERS[loss](student, teacher)


def _in_full(knowledge: Knowledge) -> Knowledge:
    """In float32 what is in half precision: the losses divide by norms."""

    def full(tensor: Tensor) -> Tensor:
        return tensor.float() if tensor.dtype in _HALF else tensor

    return Knowledge(
        [full(feature) for feature in knowledge.inputs],
        [full(feature) for feature in knowledge.stages],
        full(knowledge.embedding),
        full(knowledge.logits),
    )
