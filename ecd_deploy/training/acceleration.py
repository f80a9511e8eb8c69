# mypy: untyped-calls-exclude=accelerate

"""The Accelerator of a training, and what its processes must agree on."""

from __future__ import annotations

import torch
from accelerate.accelerator import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils.operations import broadcast
from torch import nn

from ecd_deploy.config import TrainConfig
from ecd_deploy.errors import RecipeError
from ecd_deploy.training.checkpoint import ScalerState


def build_accelerator(config: TrainConfig) -> Accelerator:
    """Build the Accelerator for the device and the processes of this launch.

    Raises:
        RecipeError: the device cannot train in this precision.
    """
    # the state is global and refuses another precision than that of an earlier training in this process
    AcceleratorState._reset_state()
    GradientState._reset_state()
    try:
        return Accelerator(mixed_precision=config.mixed_precision)
    except ValueError as error:
        raise RecipeError(
            f"train.mixed_precision: '{config.mixed_precision}' cannot be used here: {error}; 'no' always works"
        ) from error


def share_buffers(module: nn.Module, accelerator: Accelerator) -> None:
    """Give every process the first one's buffers: each has seen other images in its batch norms."""
    if accelerator.num_processes > 1:
        with torch.no_grad():
            broadcast(list(module.buffers()))


def scaler_state(accelerator: Accelerator) -> ScalerState | None:
    """The loss scaling of fp16; None in other precisions."""
    if accelerator.scaler is None:
        return None
    state = accelerator.scaler.state_dict()
    return ScalerState(scale=state["scale"], growth_tracker=state["_growth_tracker"])


def restore_scaler(accelerator: Accelerator, state: ScalerState | None) -> None:
    """Put the loss scaling back."""
    if accelerator.scaler is not None and state is not None:
        current = accelerator.scaler.state_dict()
        accelerator.scaler.load_state_dict({**current, "scale": state.scale, "_growth_tracker": state.growth_tracker})
