"""SGD over every trainable parameter, and its momentum by parameter name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from ecd_deploy.errors import CheckpointError
from ecd_deploy.recipe.train import TrainConfig

_MOMENTUM = "momentum_buffer"  # torch's key


def build_optimizer(model: nn.Module, config: TrainConfig, device: torch.device | None = None) -> SGD:
    """Build SGD; weight decay holds for all parameters, biases and norms too, as in the paper's appendix A.1.

    The momentum is there from the start, as zeros, which gives the same first step. torch would make it in that step,
    and leave it without values if the scaler of fp16 skips it; nor could a CUDA graph hold a step unlike the others.

    Args:
        model: whose parameters are trained.
        config: the recipe's training section.
        device: of the training; on an accelerator the rate is a tensor, for a CUDA graph would keep a number.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    is_cpu = device is None or device.type == "cpu"
    optimizer = SGD(
        parameters,
        lr=config.learning_rate if is_cpu else torch.tensor(config.learning_rate, device=device),
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
        fused=True,
    )
    if config.momentum:
        for parameter in parameters:
            optimizer.state[parameter][_MOMENTUM] = torch.zeros_like(parameter)
    return optimizer


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Let the next step have this learning rate."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def momentum_of(model: nn.Module, optimizer: SGD) -> dict[str, Tensor]:
    """The momentum of each parameter that has one, by the parameter's name."""
    buffers = ((name, optimizer.state[parameter].get(_MOMENTUM)) for name, parameter in _trainable(model))
    return {name: buffer for name, buffer in buffers if buffer is not None}


def restore_momentum(model: nn.Module, optimizer: SGD, momentum: Mapping[str, Tensor]) -> None:
    """Put momentum back in place, on each parameter's device.

    Raises:
        CheckpointError: it belongs to other parameters.
    """
    parameters = dict(_trainable(model))
    for name, buffer in momentum.items():
        parameter = parameters.get(name)
        if parameter is None or parameter.shape != buffer.shape:
            raise CheckpointError(f"the checkpoint has momentum of shape {tuple(buffer.shape)} for no parameter {name}")
        optimizer.state[parameter][_MOMENTUM] = buffer.to(parameter.device, parameter.dtype, copy=True)


def _trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
