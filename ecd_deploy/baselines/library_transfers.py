"""Losses between a frozen teacher's knowledge and the student's that are torchdistill's: the extra `[baselines]`.

Ours is what they are given: which features, and the transforms between them. Where the paper leaves that open, it
is as in CRD's public code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn

from ecd_deploy.baselines.transfers import Transfer, require_aligned
from ecd_deploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from ecd_deploy.baselines.knowledge import Knowledge

EMBEDDING_FEATURES = 128
"""Of cc and crd, as in CRD's code."""

_CC_GAMMA, _CC_ORDER = 0.4, 2  # of torchdistill's example
_FT_RATE = 0.5
_VID_FIRST_VARIANCE, _VID_LEAST_VARIANCE = 5.0, 1e-5

_Shown = dict[str, dict[str, Any]]


def library() -> ModuleType:
    """Return torchdistill's losses.

    Raises:
        UsageError: it is not installed.
    """
    try:
        from torchdistill.losses import mid_level
    except ImportError as error:
        raise UsageError(
            f"method.pretrained.losses other than kd, fitnet, sp and nst need torchdistill, which cannot be imported "
            f"({error}); install it with pip install 'ecd-deploy[baselines]'"
        ) from error
    module: ModuleType = mid_level
    return module


class LibraryTransfer(Transfer):
    """A loss of torchdistill on stages or embeddings as they are."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, student: Knowledge, teacher: Knowledge, indices: Tensor) -> Tensor:
        """Compute the scalar."""
        del indices
        value: Tensor = self.loss(_shown(student), _shown(teacher))
        return value


def attention_transfer(student: Knowledge, teacher: Knowledge) -> Transfer:
    """AT: Zagoruyko and Komodakis (2017), as in their code: mean squared differences, summed over the stages."""
    require_aligned("at", student, teacher)
    pairs = {name: {"student": _output(name), "teacher": _output(name)} for name in _stage_names(student)}
    return LibraryTransfer(library().ATLoss(pairs, mode="code"))


def probabilistic_transfer() -> Transfer:
    """PKT: Passalis and Tefas (2018), on the embeddings."""
    return LibraryTransfer(library().PKTLoss("embedding", "output", "embedding", "output"))


def relational(distance: float, angle: float) -> Transfer:
    """RKD: Park et al. (2019), on the embeddings, with the weights of distances and angles."""
    return LibraryTransfer(library().RKDLoss("embedding", "embedding", distance, angle, "mean"))


class FlowOfSolution(Transfer):
    """FSP: Yim et al. (2017), between each stage's input and output, in one stage of training.

    The matrices are torchdistill's. Its FSPLoss (1.1.5) adds up lengths of their columns, where the article has
    squares; as in CRD's code, ours are a mean over the elements.
    """

    def __init__(self, student: Knowledge, teacher: Knowledge) -> None:
        super().__init__()
        require_aligned("fsp", student, teacher, widths=True)
        self._matrices: Callable[[Tensor, Tensor], Tensor] = library().FSPLoss.compute_fsp_matrix

    def forward(self, student: Knowledge, teacher: Knowledge, indices: Tensor) -> Tensor:
        """Compute the mean squared difference of the matrices, summed over stages."""
        del indices
        own, other = (
            [self._matrices(first, last) for first, last in zip(one.inputs, one.stages, strict=True)]
            for one in (student, teacher)
        )
        return torch.stack([F.mse_loss(*pair) for pair in zip(own, other, strict=True)]).sum()


class VariationalInformation(Transfer):
    """VID: Ahn et al. (2019), on each stage; mu has as many hidden channels as outputs, and no norm (table 11)."""

    def __init__(self, student: Knowledge, teacher: Knowledge) -> None:
        super().__init__()
        require_aligned("vid", student, teacher)
        names = _stage_names(student)
        self.loss = library().VIDLoss({name: {"student": _output(name), "teacher": _output(name)} for name in names})
        pairs = zip(student.stages, teacher.stages, strict=True)
        self.regressors = nn.ModuleList(_mean_of(own.shape[1], other.shape[1]) for own, other in pairs)
        # the inverse of the softplus below
        start = torch.tensor(_VID_FIRST_VARIANCE - _VID_LEAST_VARIANCE).expm1().log()
        self.variances = nn.ParameterList(nn.Parameter(start.repeat(one.shape[1])) for one in teacher.stages)

    def forward(self, student: Knowledge, teacher: Knowledge, indices: Tensor) -> Tensor:
        """Compute the negative log-likelihood, a mean over elements, summed over stages."""
        del indices
        shown = {
            name: {"output": (mean(feature), (F.softplus(variance) + _VID_LEAST_VARIANCE).view(1, -1, 1, 1))}
            for name, mean, variance, feature in zip(
                _stage_names(student), self.regressors, self.variances, student.stages, strict=True
            )
        }
        value: Tensor = self.loss(shown, _shown(teacher))
        return value


class FactorTransfer(Transfer):
    """FT: Kim et al. (2018), on the last stage.

    There the paraphraser is trained before the student, without labels. Ours learns its reconstruction beside the
    student, with a gradient of its own: nothing of the student's loss reaches it.

    Args:
        student: of one image.
        teacher: likewise.
        factor: of this loss, by which the reconstruction, which has none, is divided.
    """

    def __init__(self, student: Knowledge, teacher: Knowledge, factor: float) -> None:
        super().__init__()
        require_aligned("ft", student, teacher)
        self.loss = library().FTLoss()
        own, other = student.stages[-1].shape[1], teacher.stages[-1].shape[1]
        factors = max(1, int(other * _FT_RATE))
        self.paraphraser = nn.Sequential(_activated(other, other), _activated(other, factors))
        self.reconstruction = nn.Sequential(_activated(factors, other), nn.Conv2d(other, other, 3, padding=1))
        self.translator = nn.Sequential(_activated(own, own), _activated(own, factors))
        self._share = 1 / factor

    def forward(self, student: Knowledge, teacher: Knowledge, indices: Tensor) -> Tensor:
        """Compute the mean absolute difference of the factors, scaled to length one; see above for the rest."""
        del indices
        factors = self.paraphraser(teacher.stages[-1])
        reconstruction = F.mse_loss(self.reconstruction(factors), teacher.stages[-1])
        translated = {"translator": {"output": self.translator(student.stages[-1])}}
        value: Tensor = self.loss(translated, {"paraphraser": {"output": factors.detach()}})
        return value + self._share * reconstruction


class CorrelationCongruence(Transfer):
    """CC: Peng et al. (2019), on linear embeddings, with a Gaussian kernel expanded to the second order.

    The expansion holds for embeddings of length one, so they are scaled. The matrices are torchdistill's, whose
    CCKDLoss (1.1.5) takes the distance of the two where the article has its square.
    """

    def __init__(self, student: Knowledge, teacher: Knowledge) -> None:
        super().__init__()
        kernel = {"type": "gaussian", "gamma": _CC_GAMMA, "max_p": _CC_ORDER}
        self._matrix: Callable[[Tensor], Tensor] = (
            library().CCKDLoss("", "", kernel, "batchmean").compute_cc_mat_by_gaussian_rbf
        )
        self.student_embedding = UnitEmbedding(student.embedding.shape[1])
        self.teacher_embedding = UnitEmbedding(teacher.embedding.shape[1])

    def forward(self, student: Knowledge, teacher: Knowledge, indices: Tensor) -> Tensor:
        """Compute the squared distance of the correlation matrices (N, N), over N^2."""
        del indices
        own, other = self.student_embedding(student.embedding), self.teacher_embedding(teacher.embedding)
        return F.mse_loss(self._matrix(own), self._matrix(other))


class UnitEmbedding(nn.Module):
    """A linear map (N, features) -> (N, 128) to vectors of length one."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, EMBEDDING_FEATURES)

    def forward(self, embedding: Tensor) -> Tensor:
        """Map and scale."""
        return F.normalize(self.linear(embedding))


def _stage_names(knowledge: Knowledge) -> list[str]:
    return [f"stage{number}" for number in range(len(knowledge.stages))]


def _output(path: str) -> dict[str, str]:
    return {"path": path, "io": "output"}


def _shown(knowledge: Knowledge) -> _Shown:
    """The knowledge in torchdistill's form."""
    stages = {name: {"output": last} for name, last in zip(_stage_names(knowledge), knowledge.stages, strict=True)}
    return {**stages, "embedding": {"output": knowledge.embedding}}


def _mean_of(channels: int, outputs: int) -> nn.Module:
    layers: list[nn.Module] = []
    for before in (channels, outputs, outputs):
        layers += [nn.Conv2d(before, outputs, 1, bias=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _activated(channels: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1))
