"""The terms of every objective, each a scalar: paper, equations 1 and 2."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor


def training_loss(outputs: tuple[Tensor, ...], labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Sum the mean cross-entropies of all heads: `CE(student) + CE(teacher)`, nothing else (equation 2).

    Args:
        outputs: logits (N, classes) of each head.
        labels: class indices (N,).
        label_smoothing: share of the target spread evenly over all classes.

    Returns:
        A scalar.
    """
    losses = [F.cross_entropy(logits, labels, label_smoothing=label_smoothing) for logits in outputs]
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


def feature_loss(pairs: tuple[Tensor, ...]) -> Tensor:
    """Sum, over the places compared, of the mean squared difference of the features.

    The paper names neither the distance nor its scale: the mean over all elements is our choice. As in
    equation 1 the gradient reaches both networks.

    Args:
        pairs: student's feature, teacher's, student's, ... each two of one shape (N, C, H, W).
    """
    distances = [F.mse_loss(student, teacher) for student, teacher in zip(pairs[::2], pairs[1::2], strict=True)]
    return torch.stack(distances).sum()
