"""What is trained: the student merged with its teacher (paper, section 3.2 and figure 1), or the student alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ecd_deploy.distill.connections import ConnectionKind, FeatureConnections
from ecd_deploy.distill.hooks import adding, reading
from ecd_deploy.distill.sites import chosen_sites
from ecd_deploy.distill.teacher import TeacherKind, build_teacher

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ecd_deploy.config import MethodConfig
    from ecd_deploy.distill.dynamic_conv import Backend


class TrainingModel(nn.Module, ABC):
    """A model that trains a student.

    `forward` maps images (N, C, H, W) to logits (N, classes), one tensor a head and the student's first,
    which depend on the student alone. Everything that is not the student is in `auxiliary`.
    """

    student: nn.Module

    @abstractmethod
    def auxiliary(self) -> Mapping[str, nn.Module]:
        """Return the parts that are thrown away after training, by name."""

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of each head."""


class ECDModel(TrainingModel):
    """A student, the teacher generated from it, and one-way connections between them.

    Attributes:
        student: the network given; it is neither edited nor copied.
        teacher: its dynamic counterpart.
        connections: the transforms of the connected features.
        report: how the teacher was made.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: TeacherKind = "daconv",
        kernels: int = 16,
        connection: ConnectionKind = "conv1x1",
        stages: Iterable[int] = (2, 3),
        *,
        sites: Iterable[str] = (),
        reduction: int = 4,
        temperature: float = 1.0,
        backend: Backend = "grouped",
        example: Tensor | None = None,
    ) -> None:
        """Generate the teacher and the connections.

        Args:
            student: any network of images (N, C, H, W) -> logits (N, classes).
            teacher: how the teacher is generated.
            kernels: n, the kernels of a dynamic convolution.
            connection: T of `phi_T + T(phi_S)`.
            stages: numbers of the connected stages; 2 is Conv2_x.
            sites: patterns of the names of the connected modules, instead of `stages` (see `chosen_sites`).
            reduction: of the router.
            temperature: of the router.
            backend: of the dynamic convolution.
            example: images (N, C, H, W) to find the structure with; by default the size is guessed.

        Raises:
            StudentError: the student cannot be treated, or has no such stage or site.
            UsageError: an argument is out of its range.
        """
        super().__init__()
        generated = build_teacher(
            student,
            teacher=teacher,
            kernels=kernels,
            reduction=reduction,
            temperature=temperature,
            backend=backend,
            example=example,
        )
        like = next(student.parameters())
        self.student = student
        self.teacher = generated.module
        self.report = generated.report
        chosen = chosen_sites(self.report, stages, sites)
        self.connections = FeatureConnections(chosen, connection).to(device=like.device, dtype=like.dtype)

    def auxiliary(self) -> Mapping[str, nn.Module]:
        """Return teacher and connections."""
        return {"teacher": self.teacher, "connections": self.connections}

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return (student logits, teacher logits), each (N, classes)."""
        with reading(self.student, self.connections.sites) as features:
            student_logits: Tensor = self.student(images)
        with adding(self.teacher, self.connections, features):
            teacher_logits: Tensor = self.teacher(images)
        return student_logits, teacher_logits


class PlainModel(TrainingModel):
    """The student alone: the baseline of every comparison."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def auxiliary(self) -> Mapping[str, nn.Module]:
        """Return nothing: the student is all there is."""
        return {}

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Return (student logits,), of shape (N, classes)."""
        return (self.student(images),)


def build_training_model(
    config: MethodConfig, student: nn.Module, *, example: Tensor | None = None
) -> ECDModel | PlainModel:
    """Make the model that a recipe asks for.

    Args:
        config: the recipe's method.
        student: any network of images (N, C, H, W) -> logits (N, classes).
        example: images (N, C, H, W) to find the student's structure with.

    Raises:
        StudentError: the student cannot be treated, or has no such stage.
    """
    if config.name == "plain":
        return PlainModel(student)
    return ECDModel(
        student,
        config.teacher,
        config.kernels,
        config.connection,
        config.stages,
        sites=config.sites,
        reduction=config.reduction,
        temperature=config.temperature,
        backend=config.backend,
        example=example,
    )
