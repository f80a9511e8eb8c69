"""The optimiser over every trainable parameter, and its state by parameter name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from ecd_deploy.distill import TrainingModel
from ecd_deploy.recipe.train import TrainConfig
from ecd_deploy.training.checkpoints.weights import require_alike

_SHARE = "share"  # of the learning rate, a key of our own in each of torch's groups
_SECOND_BETA = 0.999  # torch's default


def build_optimizer(model: nn.Module, config: TrainConfig, device: torch.device | None = None) -> Optimizer:
    """Build the optimiser; weight decay holds for all parameters, biases and norms too, as in the paper's appendix A.1.

    Its state is there from the start, as zeros, which gives the same first step. torch would make it in that step, and
    leave it without values if the scaler of fp16 skips it; nor could a CUDA graph hold a step unlike the others.

    Args:
        model: whose parameters are trained; those of its `rates` in groups of their own.
        config: the recipe's training section.
        device: of the training; on an accelerator the rate is a tensor, for a CUDA graph would keep a number.
    """
    is_cpu = device is None or device.type == "cpu"
    rates = model.rates if isinstance(model, TrainingModel) else {}
    shares: dict[float, list[nn.Parameter]] = {}
    for name, parameter in _trainable(model):
        shares.setdefault(rates.get(name, 1.0), []).append(parameter)
    groups = [
        {
            "params": parameters,
            "lr": config.learning_rate * share if is_cpu else torch.tensor(config.learning_rate * share, device=device),
            _SHARE: share,
        }
        for share, parameters in shares.items()
    ]
    optimizer: Optimizer
    if config.optimizer == "adamw":
        betas = (config.momentum, _SECOND_BETA)
        optimizer = AdamW(groups, betas=betas, weight_decay=config.weight_decay, capturable=not is_cpu, fused=True)
    else:
        optimizer = SGD(
            groups,
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
            fused=True,
        )
    for _, parameter in _trainable(model):
        optimizer.state[parameter].update(_initial_state(parameter, config))
    return optimizer


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Let the next step have this learning rate, each group its share of it."""
    for group in optimizer.param_groups:
        own = rate * group.get(_SHARE, 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own


def optimizer_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Every tensor that the optimiser keeps of a parameter, as `KEY/NAME` by torch's key and the parameter's name."""
    return {
        f"{key}/{name}": value
        for name, parameter in _trainable(model)
        for key, value in optimizer.state[parameter].items()
        if isinstance(value, Tensor)
    }


def restore_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Put the state back in place, on each parameter's device.

    Args:
        own: the optimiser's, as `optimizer_state` gives it.
        state: what it was.

    Raises:
        CheckpointError: it belongs to other parameters, or to another optimiser.
    """
    require_alike(own, state, "optimiser")
    with torch.no_grad():
        for name, value in state.items():
            own[name].copy_(value)


def _initial_state(parameter: nn.Parameter, config: TrainConfig) -> dict[str, Tensor]:
    """Zeros, by torch's keys."""
    if config.optimizer == "adamw":
        return {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return {"momentum_buffer": torch.zeros_like(parameter)} if config.momentum else {}


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
