from __future__ import annotations

import torch

from ecd_deploy.distill import TrainingOutputs, training_loss


def reference(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Mean over samples of -sum_c q_c log p_c, with q the smoothed one-hot target."""
    classes = logits.shape[1]
    target = torch.full_like(logits, smoothing / classes)
    target[torch.arange(len(labels)), labels] += 1 - smoothing
    log_probability = logits - logits.exp().sum(dim=1, keepdim=True).log()
    return -(target * log_probability).sum(dim=1).mean()


def test_loss_is_the_sum_of_the_heads_cross_entropies() -> None:
    torch.manual_seed(0)
    heads = torch.randn(2, 6, 5, dtype=torch.float64)
    labels = torch.randint(5, (6,))
    for smoothing in (0.0, 0.1):
        expected = torch.stack([reference(head, labels, smoothing) for head in heads]).sum()
        torch.testing.assert_close(training_loss(TrainingOutputs(*heads), labels, label_smoothing=smoothing), expected)


def test_one_head_has_its_own_cross_entropy() -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    torch.testing.assert_close(training_loss(TrainingOutputs(logits), labels), reference(logits, labels, 0.0))
