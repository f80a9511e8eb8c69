from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR, SequentialLR

from ecd_deploy.recipe.train import TrainConfig
from ecd_deploy.training.steps.schedule import learning_rate

STEPS = 7


def optimizer() -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


def rates(config: TrainConfig) -> list[float]:
    return [learning_rate(step, config, STEPS) for step in range(config.epochs * STEPS)]


def rates_of(scheduler: LRScheduler, count: int) -> list[float]:
    found = []
    for _ in range(count):
        found.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return [float(rate) for rate in found]


def test_multistep_equals_torchs() -> None:
    config = TrainConfig(epochs=10, schedule="multistep", milestones=(3, 8), decay=0.2)
    reference = MultiStepLR(optimizer(), [3 * STEPS, 8 * STEPS], gamma=0.2)
    assert rates(config) == pytest.approx(rates_of(reference, 10 * STEPS), rel=1e-12)


def test_cosine_equals_torchs() -> None:
    config = TrainConfig(epochs=10, schedule="cosine")
    reference = CosineAnnealingLR(optimizer(), 10 * STEPS)
    assert rates(config) == pytest.approx(rates_of(reference, 10 * STEPS), rel=1e-9)


def test_warm_up_then_cosine_equals_torchs() -> None:
    config = TrainConfig(epochs=10, schedule="cosine", warmup_epochs=2.0)
    sgd, warmup = optimizer(), 2 * STEPS
    linear = LinearLR(sgd, 1 / warmup, 1.0, total_iters=warmup - 1)
    reference = SequentialLR(sgd, [linear, CosineAnnealingLR(sgd, 8 * STEPS)], [warmup])
    assert rates(config) == pytest.approx(rates_of(reference, 10 * STEPS), rel=1e-9)


def test_warm_up_reaches_the_full_rate_and_leaves_milestones_alone() -> None:
    config = TrainConfig(epochs=10, schedule="multistep", milestones=(5,), warmup_epochs=1.5)
    found = rates(config)
    warmup = round(1.5 * STEPS)
    assert found[:warmup] == pytest.approx([0.1 * (step + 1) / warmup for step in range(warmup)])
    assert found[warmup : 5 * STEPS] == pytest.approx([0.1] * (5 * STEPS - warmup))
    assert found[5 * STEPS :] == pytest.approx([0.01] * (5 * STEPS))


def test_warm_up_over_the_whole_training() -> None:
    found = rates(TrainConfig(epochs=2, schedule="cosine", warmup_epochs=2.0))
    assert found[-1] == pytest.approx(0.1)
