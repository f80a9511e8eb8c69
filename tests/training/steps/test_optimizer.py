from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from ecd_deploy.distill import PlainModel
from ecd_deploy.errors import CheckpointError
from ecd_deploy.recipe.train import TrainConfig
from ecd_deploy.training.steps.optimizer import build_optimizer, optimizer_state, restore_state, set_rate


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(2, 3)).square().sum().backward()
    optimizer.step()


def test_momentum_restored_by_name_goes_on_alike() -> None:
    torch.manual_seed(0)
    models = [nn.Linear(3, 4), nn.Linear(3, 4)]
    optimizers = [build_optimizer(model, TrainConfig(learning_rate=0.01)) for model in models]
    step(models[0], optimizers[0])
    models[1].load_state_dict(models[0].state_dict())
    restore_state(optimizer_state(models[1], optimizers[1]), optimizer_state(models[0], optimizers[0]))
    for model, optimizer in zip(models, optimizers, strict=True):
        step(model, optimizer)
    assert torch.equal(models[0].weight, models[1].weight)
    assert optimizer_state(models[1], optimizers[1]).keys() == {"momentum_buffer/weight", "momentum_buffer/bias"}


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


def test_optimizer_state_another_model_is_refused() -> None:
    model = nn.Linear(3, 4)
    optimizer = build_optimizer(model, TrainConfig())
    state = optimizer_state(model, optimizer)
    with pytest.raises(CheckpointError, match=r"at momentum_buffer/teacher it has \(2,\), this one has nothing"):
        restore_state(state, {**state, "momentum_buffer/teacher": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"at momentum_buffer/weight it has \(2,\), this one has \(4, 3\)"):
        restore_state(state, {**state, "momentum_buffer/weight": torch.zeros(2)})
    adamw = build_optimizer(model, TrainConfig(optimizer="adamw", learning_rate=0.1))
    with pytest.raises(CheckpointError, match="at exp_avg/bias it has nothing"):
        restore_state(optimizer_state(model, adamw), state)


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Memory that torch does not initialise is full of NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("nesterov", [False, True])
def test_a_first_step_that_the_scaler_skips_leaves_no_momentum(nesterov: bool) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 4)
    config = TrainConfig(learning_rate=0.01, nesterov=nesterov)
    expected = copy.deepcopy(model)
    plain = torch.optim.SGD(
        expected.parameters(), lr=0.01, momentum=config.momentum, weight_decay=config.weight_decay, nesterov=nesterov
    )
    optimizer = build_optimizer(model, config)
    scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    for factor in (1e38, 1.0, 1.0):
        optimizer.zero_grad()
        scaler.scale(model(torch.ones(2, 3)).square().sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
    for _ in range(2):
        plain.zero_grad()
        expected(torch.ones(2, 3)).square().sum().backward()
        plain.step()
    assert scaler.get_scale() == 32768
    torch.testing.assert_close(model.state_dict(), expected.state_dict())
    momentum = optimizer_state(model, optimizer)
    for name, parameter in expected.named_parameters():
        torch.testing.assert_close(momentum[f"momentum_buffer/{name}"], plain.state[parameter]["momentum_buffer"])


def test_a_rate_on_the_device_is_the_rate() -> None:
    torch.manual_seed(0)
    config = TrainConfig(learning_rate=0.5)
    models = [nn.Linear(3, 4), nn.Linear(3, 4)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [build_optimizer(model, config) for model in models]
    (group,) = optimizers[1].param_groups
    group["lr"] = rate = torch.tensor(config.learning_rate)
    for value in (0.25, 0.125):
        for model, optimizer in zip(models, optimizers, strict=True):
            set_rate(optimizer, value)
            step(model, optimizer)
    assert group["lr"] is rate
    assert torch.equal(models[0].weight, models[1].weight)


def test_adamw_is_torch_s() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 4)
    reference = copy.deepcopy(model)
    config = TrainConfig(optimizer="adamw", learning_rate=0.01, momentum=0.8, weight_decay=0.1)
    fused = build_optimizer(model, config)
    plain = torch.optim.AdamW(reference.parameters(), lr=0.01, betas=(0.8, 0.999), weight_decay=0.1, foreach=False)
    for _ in range(5):
        step(model, fused)
        step(reference, plain)
    torch.testing.assert_close(model.state_dict(), reference.state_dict())
    kept = optimizer_state(model, fused)
    assert {name.partition("/")[0] for name in kept} == {"step", "exp_avg", "exp_avg_sq"}
    assert kept["step/weight"] == 5


def test_parameters_with_a_rate_of_their_own_have_their_share_of_it() -> None:
    torch.manual_seed(0)
    slow, usual = nn.Linear(3, 4), nn.Linear(3, 4)
    usual.load_state_dict(slow.state_dict())
    model = PlainModel(slow)
    model.rates = {"student.weight": 0.25}
    weight = usual.weight.detach().clone()
    config = TrainConfig(momentum=0.0, weight_decay=0.0)
    for layer, optimizer in ((slow, build_optimizer(model, config)), (usual, build_optimizer(usual, config))):
        set_rate(optimizer, 0.5)
        step(layer, optimizer)
    torch.testing.assert_close(slow.weight - weight, (usual.weight - weight) / 4)
    torch.testing.assert_close(slow.bias, usual.bias)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_parameter_without_gradient_in_the_first_steps_trains_later(momentum: float) -> None:
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    reference = copy.deepcopy(model)
    config = TrainConfig(momentum=momentum, weight_decay=0.0)
    fused = build_optimizer(model, config)
    plain = torch.optim.SGD(reference.parameters(), lr=config.learning_rate, momentum=momentum, fused=False)
    for number in range(4):
        for network, optimizer in ((model, fused), (reference, plain)):
            optimizer.zero_grad()
            sum(layer(torch.ones(1, 2)).sum() for layer in list(network)[: 1 if number < 2 else 2]).backward()
            optimizer.step()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
