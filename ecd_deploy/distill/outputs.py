"""What the forward of a model that trains a student returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from torch import Tensor

HeadName = Literal["student", "teacher", "ensemble"]


class FeaturePair(NamedTuple):
    """The features of student and teacher at one place, both of one shape (N, C, H, W)."""

    student: Tensor
    teacher: Tensor


class TrainingOutputs(NamedTuple):
    """What a `TrainingModel` gives for images (N, C, H, W); what it does not have is None or empty.

    A named tuple, since torch and Accelerate look for tensors in tuples: to cast them, to export them, and to
    exchange gradients between processes.

    Attributes:
        student: logits (N, classes), which depend on the student alone.
        teacher: logits (N, classes) of the generated teacher; of ONE the gated ensemble of all branches; in
            evaluation mode of a student that has none of these, the teacher trained before.
        ensemble: logits (N, classes) of the learned ensemble of student and teacher.
        branches: in training mode, logits (N, classes) of each branch of ONE but the student.
        pairs: in training mode, the features that the objective compares.
        transfer: in training mode, the sum of the losses from a teacher trained before, with their factors, a scalar.
    """

    student: Tensor
    teacher: Tensor | None = None
    ensemble: Tensor | None = None
    branches: tuple[Tensor, ...] = ()
    pairs: tuple[FeaturePair, ...] = ()
    transfer: Tensor | None = None

    def heads(self) -> Mapping[HeadName, Tensor]:
        """Logits (N, classes) of each head that there is, by its name; the student is the first."""
        heads: dict[HeadName, Tensor | None] = {
            "student": self.student,
            "teacher": self.teacher,
            "ensemble": self.ensemble,
        }
        return {name: logits for name, logits in heads.items() if logits is not None}
