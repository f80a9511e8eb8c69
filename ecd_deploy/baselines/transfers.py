"""Losses between a frozen teacher's knowledge and the student's, by our own formulas.

Each is a module that maps the knowledge of student and teacher and the images' indices (N,) to a scalar.
Where a choice is left, it is that of CRD's public code, which the paper took its methods from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn

from ecd_deploy.distill.losses import divergence
from ecd_deploy.errors import StudentError

if TYPE_CHECKING:
    from ecd_deploy.baselines.knowledge import Knowledge


class Transfer(nn.Module, ABC):
    """A loss by which the student learns from a frozen teacher, before its factor."""

    @abstractmethod
    def forward(self, student: Knowledge, teacher: Knowledge, indices: Tensor) -> Tensor:
        """Compute the scalar; `indices` (N,) are the images' positions in the training split."""


class SoftLabels(Transfer):
    """KD: Hinton et al. (2015), <https://arxiv.org/abs/1503.02531>."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self._temperature = temperature

    def forward(self, student: Knowledge, teacher: Knowledge, indices: Tensor) -> Tensor:
        """Compute `T^2 KL(teacher || student)`."""
        del indices
        return divergence(teacher.logits, student.logits, self._temperature)


class Hint(Transfer):
    """FitNet: the mean squared difference of one feature, Romero et al. (2015), <https://arxiv.org/abs/1412.6550>.

    One stage and no hint layer (table 11): the feature after the second stage, as it is. Where the teacher's is
    wider, FitNets' own regressor, a 1x1 convolution, widens the student's.
    """

    def __init__(self, student: Knowledge, teacher: Knowledge) -> None:
        super().__init__()
        require_aligned("fitnet", student, teacher)
        self._place = min(1, len(student.stages) - 1)
        own, other = student.stages[self._place].shape[1], teacher.stages[self._place].shape[1]
        self.regressor = nn.Identity() if own == other else nn.Conv2d(own, other, 1)

    def forward(self, student: Knowledge, teacher: Knowledge, indices: Tensor) -> Tensor:
        """Compute the mean over all elements."""
        del indices
        return F.mse_loss(self.regressor(student.stages[self._place]), teacher.stages[self._place])


class SimilarityPreservation(Transfer):
    """SP: Tung and Mori (2019), <https://arxiv.org/abs/1907.09682>, on the last stage's features.

    torchdistill's SPKDLoss (1.1.5) divides a row of the similarities by its sum of absolute values, where the
    article has the Euclidean norm; factor 3000 is meant for the article's.
    """

    def forward(self, student: Knowledge, teacher: Knowledge, indices: Tensor) -> Tensor:
        """Compute `||G_T - G_S||_F^2 / N^2` of the similarities (N, N), their rows of length one."""
        del indices
        own, other = (_similarities(one.stages[-1]) for one in (student, teacher))
        return (other - own).square().sum() / len(own) ** 2


class NeuronSelectivity(Transfer):
    """NST: Huang and Wang (2017), <https://arxiv.org/abs/1707.01219>, summed over the stages.

    The squared maximum mean discrepancy between the channels of both, each channel's map scaled to length one,
    with the kernel `(x . y + c)^d` of d = 2 and c = 0 (table 11).
    """

    def __init__(self, student: Knowledge, teacher: Knowledge) -> None:
        super().__init__()
        require_aligned("nst", student, teacher)

    def forward(self, student: Knowledge, teacher: Knowledge, indices: Tensor) -> Tensor:
        """Compute the mean over images, summed over stages."""
        del indices
        pairs = zip(student.stages, teacher.stages, strict=True)
        return torch.stack([_discrepancy(*map(_unit_channels, pair)) for pair in pairs]).sum()


def require_aligned(loss: str, student: Knowledge, teacher: Knowledge, *, widths: bool = False) -> None:
    """See that the stages of both can be compared one by one.

    Args:
        loss: whose name the error gives.
        student: of one image.
        teacher: likewise.
        widths: whether the channels must be equal too, also at the stages' inputs.

    Raises:
        StudentError: their number, a resolution or a width differs.
    """
    own, other = ([tuple(feature.shape[1:]) for feature in one.stages] for one in (student, teacher))
    equal = [shape[1:] for shape in own] == [shape[1:] for shape in other]
    if widths:
        inputs = [[tuple(feature.shape[1:]) for feature in one.inputs] for one in (student, teacher)]
        equal = own == other and inputs[0] == inputs[1]
    if not equal:
        needs = "channels and resolutions" if widths else "resolutions"
        raise StudentError(
            f"method.pretrained.losses: '{loss}' needs stages of equal {needs}; the student's are {_shown(own)}, "
            f"the teacher's {_shown(other)}; losses on logits or embeddings (kd, sp, pkt, rkd, cc, crd) do not"
        )


def _shown(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in shapes)


def _similarities(feature: Tensor) -> Tensor:
    flat = feature.flatten(1)
    return F.normalize(flat @ flat.T, dim=1)


def _unit_channels(feature: Tensor) -> Tensor:
    return F.normalize(feature.flatten(2), dim=2)


def _discrepancy(student: Tensor, teacher: Tensor) -> Tensor:
    def kernel(first: Tensor, second: Tensor) -> Tensor:
        return (first @ second.mT).square().mean()

    return kernel(teacher, teacher) + kernel(student, student) - 2 * kernel(student, teacher)
