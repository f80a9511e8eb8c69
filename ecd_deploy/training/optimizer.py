"""SGD over every trainable parameter, and its momentum by parameter name."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.optim import SGD

from ecd_deploy.errors import CheckpointError
from ecd_deploy.recipe.train import TrainConfig

_MOMENTUM = "momentum_buffer"  # torch's key


def build_optimizer(model: nn.Module, config: TrainConfig) -> SGD:
    """Build SGD; weight decay holds for all parameters, biases and norms too, as in the paper's appendix A.1."""
    return SGD(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
        fused=True,
    )


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
