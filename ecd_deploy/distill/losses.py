"""The terms of every objective, each a scalar: paper, equations 1 and 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor

if TYPE_CHECKING:
    from ecd_deploy.distill.outputs import FeaturePair, TrainingOutputs


def training_loss(outputs: TrainingOutputs, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Sum the mean cross-entropies of all heads: `CE(student) + CE(teacher)`, nothing else (equation 2).

    Args:
        outputs: of a `TrainingModel`.
        labels: class indices (N,).
        label_smoothing: share of the target spread evenly over all classes.

    Returns:
        A scalar.
    """
    losses = [F.cross_entropy(logits, labels, label_smoothing=label_smoothing) for logits in outputs.heads().values()]
    return torch.stack(losses).sum()


def divergence(target: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """`T^2 KL(softmax(target / T) || softmax(logits / T))`, the mean over images; no gradient reaches the target.

    Hinton et al. (2015), <https://arxiv.org/abs/1503.02531>. Both are logits (N, classes).
    """
    expected = torch.log_softmax(target.detach() / temperature, dim=1)
    found = torch.log_softmax(logits / temperature, dim=1)
    return F.kl_div(found, expected, reduction="batchmean", log_target=True) * temperature**2


def mutual_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Each head imitates the other: Zhang et al. (2018), <https://arxiv.org/abs/1706.00384>."""
    return divergence(teacher, student, temperature) + divergence(student, teacher, temperature)


def ensemble_loss(student: Tensor, teacher: Tensor, ensemble: Tensor, temperature: float) -> Tensor:
    """Both heads imitate their ensemble: Lan et al. (2018), <https://arxiv.org/abs/1806.04606>."""
    return divergence(ensemble, student, temperature) + divergence(ensemble, teacher, temperature)


def feature_loss(pairs: tuple[FeaturePair, ...]) -> Tensor:
    """Sum, over the places compared, of the mean squared difference of the features.

    The paper names neither the distance nor its scale: the mean over all elements is our choice. As in
    equation 1 the gradient reaches both networks.
    """
    distances = [F.mse_loss(pair.student, pair.teacher) for pair in pairs]
    return torch.stack(distances).sum()
