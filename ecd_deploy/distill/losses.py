"""The objective: paper, section 3.2, equation 2."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor


def training_loss(outputs: tuple[Tensor, ...], labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Sum the mean cross-entropies of all heads: `CE(student) + CE(teacher)`, nothing else.

    Args:
        outputs: logits (N, classes) of each head.
        labels: class indices (N,).
        label_smoothing: share of the target spread evenly over all classes.

    Returns:
        A scalar.
    """
    losses = [F.cross_entropy(logits, labels, label_smoothing=label_smoothing) for logits in outputs]
    return torch.stack(losses).sum()
