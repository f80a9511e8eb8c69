from __future__ import annotations

import pytest
import torch
from torch import nn

from ecd_deploy.errors import CheckpointError
from ecd_deploy.recipe.train import TrainConfig
from ecd_deploy.training.optimizer import build_optimizer, momentum_of, restore_momentum


def step(model: nn.Module, optimizer: torch.optim.SGD) -> None:
    optimizer.zero_grad()
    model(torch.ones(2, 3)).square().sum().backward()
    optimizer.step()


def test_momentum_restored_by_name_goes_on_alike() -> None:
    torch.manual_seed(0)
    models = [nn.Linear(3, 4), nn.Linear(3, 4)]
    optimizers = [build_optimizer(model, TrainConfig(learning_rate=0.01)) for model in models]
    step(models[0], optimizers[0])
    models[1].load_state_dict(models[0].state_dict())
    restore_momentum(models[1], optimizers[1], momentum_of(models[0], optimizers[0]))
    for model, optimizer in zip(models, optimizers, strict=True):
        step(model, optimizer)
    assert torch.equal(models[0].weight, models[1].weight)
    assert momentum_of(models[1], optimizers[1]).keys() == {"weight", "bias"}


def test_weight_decay_has_no_exceptions_and_frozen_parameters_stay_out() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model[0].bias.requires_grad_(False)
    (group,) = build_optimizer(model, TrainConfig(weight_decay=0.3)).param_groups
    assert group["weight_decay"] == 0.3
    assert {id(parameter) for parameter in group["params"]} == {
        id(model[0].weight),
        id(model[1].weight),
        id(model[1].bias),
    }


def test_momentum_of_another_model_is_refused() -> None:
    model = nn.Linear(3, 4)
    optimizer = build_optimizer(model, TrainConfig())
    with pytest.raises(CheckpointError, match="no parameter teacher"):
        restore_momentum(model, optimizer, {"teacher": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"shape \(2,\) for no parameter weight"):
        restore_momentum(model, optimizer, {"weight": torch.zeros(2)})
