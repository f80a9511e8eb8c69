"""What is trained: the student merged with its teacher (paper, section 3.2 and figure 1), or the student alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Self

import torch
from torch import Tensor, nn

from ecd_deploy.compat.torch import is_normalisation, own_children
from ecd_deploy.distill.connections import ConnectionKind, FeatureConnections
from ecd_deploy.distill.convolution.dynamic_conv import TeacherOptions
from ecd_deploy.distill.dense import DenseConnections
from ecd_deploy.distill.ensemble import HeadEnsemble
from ecd_deploy.distill.hooks import adding, feature_pairs, reading
from ecd_deploy.distill.outputs import TrainingOutputs
from ecd_deploy.distill.sites import ConnectionSite, chosen_sites, compared_sites
from ecd_deploy.distill.teacher import GeneratedTeacher, build_teacher

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ecd_deploy.recipe.method import Features


class TrainingModel(nn.Module, ABC):
    """A model that trains a student.

    `forward` maps images (N, C, H, W) to what its heads, and the objective, are given. Everything that is not the
    student is in `auxiliary`.

    Attributes:
        layout: the memory layout in which the student gets its images, and so computes; the results are the
            same up to rounding. The teacher's is always the default one.
        rates: of the parameters that learn at another rate, by name, as shares of the recipe's.
    """

    student: nn.Module
    layout: torch.memory_format = torch.contiguous_format
    rates: Mapping[str, float] = MappingProxyType({})

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all parts; norms of the student whose parameters are all frozen stay in evaluation mode."""
        super().train(mode)
        student = own_children(self).get("student")  # a model that became a part of another has none of its own
        for module in student.modules() if mode and student is not None else ():
            own = list(module.parameters(recurse=False))
            if own and is_normalisation(module) and not any(parameter.requires_grad for parameter in own):
                module.eval()
        return self

    @abstractmethod
    def auxiliary(self) -> Mapping[str, nn.Module]:
        """Return the parts that are thrown away after training, by name."""

    @abstractmethod
    def forward(self, images: Tensor) -> TrainingOutputs:
        """Return the logits of each head, and in training mode what else the objective is to see."""


class JointModel(TrainingModel):
    """A student and a teacher generated from it, trained side by side.

    Nothing but the objective ties them together, unless there are connections: that is `ECDModel`.

    Attributes:
        student: the network given; it is neither edited nor copied.
        teacher: its stronger counterpart.
        report: how the teacher was made.
        connections: the transforms of the connected features, or None.
        ensemble: the learned combination of both heads, or None.
        compared: blocks whose features the objective compares.
    """

    def __init__(
        self,
        student: nn.Module,
        generated: GeneratedTeacher,
        connections: FeatureConnections | None = None,
        *,
        ensemble: bool = False,
        compared: Iterable[ConnectionSite] = (),
    ) -> None:
        super().__init__()
        like = next(student.parameters())
        self.student = student
        self.teacher = generated.module
        self.report = generated.report
        self.connections = None if connections is None else connections.to(device=like.device, dtype=like.dtype)
        self.ensemble = HeadEnsemble().to(device=like.device, dtype=like.dtype) if ensemble else None
        self.compared = tuple(compared)

    def auxiliary(self) -> Mapping[str, nn.Module]:
        """Return everything but the student."""
        parts = {"teacher": self.teacher, "connections": self.connections, "ensemble": self.ensemble}
        return {name: part for name, part in parts.items() if part is not None}

    def forward(self, images: Tensor) -> TrainingOutputs:
        """Return the logits of student and teacher, with an ensemble its logits too, and the pairs of features."""
        return self.with_student(self.student, images)

    def with_student(self, student: nn.Module, images: Tensor) -> TrainingOutputs:
        """Do the same with a student that stands in for the model's own, which need not be there."""
        connected = () if self.connections is None else self.connections.sites
        compared = self.compared if self.training else ()
        with reading(student, connected) as features, reading(student, compared) as of_student:
            student_logits: Tensor = student(images.contiguous(memory_format=self.layout))
        if self.connections is not None:
            features = self.connections.gather(features)
        # what is compared is read after the connection's addition
        offer = None if self.connections is None else self.connections.offer
        added = adding(self.teacher, self.connections, features, offer)
        with added, reading(self.teacher, compared) as of_teacher:
            teacher_logits: Tensor = self.teacher(images.contiguous())
        return TrainingOutputs(
            student=student_logits,
            teacher=teacher_logits,
            ensemble=None if self.ensemble is None else self.ensemble((student_logits, teacher_logits)),
            pairs=feature_pairs(of_student, of_teacher),
        )


class ECDModel(JointModel):
    """A student, the teacher generated from it, and one-way connections between them."""

    connections: FeatureConnections

    def __init__(
        self,
        student: nn.Module,
        options: TeacherOptions = TeacherOptions(),
        *,
        connection: ConnectionKind = "conv1x1",
        stages: Iterable[int] = (2, 3),
        sites: Iterable[str] = (),
        density: Literal["layer", "dense"] = "layer",
        ensemble: bool = False,
        features: Features = "none",
        example: Tensor | None = None,
    ) -> None:
        """Generate the teacher and the connections.

        Args:
            student: any network of images (N, C, H, W) -> logits (N, classes).
            options: how the teacher is generated.
            connection: T of `phi_T + T(phi_S)`.
            stages: numbers of the connected stages; 2 is Conv2_x.
            sites: patterns of the names of the connected modules, instead of `stages` (see `chosen_sites`).
            density: whether a layer also receives the student's earlier ones.
            ensemble: whether there is a third head, the learned ensemble (ECD*).
            features: which features the objective compares besides.
            example: images (N, C, H, W) to find the structure with; by default the size is guessed.

        Raises:
            StudentError: the student cannot be treated, or has no such stage or site.
            UsageError: an argument is out of its range.
        """
        stages = tuple(stages)
        generated = build_teacher(student, options, example=example)
        connections = DenseConnections if density == "dense" else FeatureConnections
        super().__init__(
            student,
            generated,
            connections(chosen_sites(generated.report, stages, sites), connection, options.teacher_init),
            ensemble=ensemble,
            compared=compared_sites(generated.report, features, stages),
        )


class PlainModel(TrainingModel):
    """The student alone: the baseline of every comparison."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def auxiliary(self) -> Mapping[str, nn.Module]:
        """Return nothing: the student is all there is."""
        return {}

    def forward(self, images: Tensor) -> TrainingOutputs:
        """Return the student's logits."""
        return self.with_student(self.student, images)

    def with_student(self, student: nn.Module, images: Tensor) -> TrainingOutputs:
        """Do the same with a student that stands in for the model's own, which need not be there."""
        return TrainingOutputs(student=student(images.contiguous(memory_format=self.layout)))
