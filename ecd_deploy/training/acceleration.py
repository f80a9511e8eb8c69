# mypy: untyped-calls-exclude=accelerate

"""The Accelerator of a training, and what its processes must agree on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate.accelerator import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils.dataclasses import DistributedDataParallelKwargs
from accelerate.utils.operations import broadcast
from torch import nn
from torch.optim import Optimizer

from ecd_deploy.compat.accelerate import forget_earlier_training, forget_preparation
from ecd_deploy.compat.torch import growth_tracker, restore_scale
from ecd_deploy.errors import RecipeError
from ecd_deploy.recipe.train import TrainConfig
from ecd_deploy.training.checkpoints.state import ScalerState
from ecd_deploy.training.steps.allocator import keep_freed_memory

_PROCESSES = DistributedDataParallelKwargs(
    # the first process's buffers are what is kept, and the others get them at the end of an epoch, by `share_buffers`
    broadcast_buffers=False,
    gradient_as_bucket_view=True,  # no second copy of all gradients
)


def prepare_process(config: TrainConfig) -> Accelerator:
    """Give this process the memory, the threads and the device of a training; raises as `build_accelerator`."""
    keep_freed_memory()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    return build_accelerator(config)


def build_accelerator(config: TrainConfig) -> Accelerator:
    """Build the Accelerator for the device and the processes of this launch.

    Raises:
        RecipeError: the device cannot train in this precision.
    """
    forget_earlier_training()
    try:
        accelerator = Accelerator(mixed_precision=config.mixed_precision, kwargs_handlers=[_PROCESSES])
    except ValueError as error:
        raise RecipeError(
            f"train.mixed_precision: '{config.mixed_precision}' cannot be used here: {error}; 'no' always works"
        ) from error
    if config.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        # accelerate ignores it there without a word
        raise RecipeError("train.mixed_precision: 'fp16' needs a GPU; on a CPU choose 'bf16' or 'no'")
    return accelerator


@contextmanager
def prepared(
    accelerator: Accelerator, model: nn.Module, optimizer: Optimizer
) -> Iterator[tuple[nn.Module, AcceleratedOptimizer]]:
    """Prepare a model and its optimiser for the device and the processes; the model is left as it was.

    On the way out the casts of mixed precision, which accelerate puts around `forward`, are taken off again.
    """
    had_own_forward = "forward" in vars(model)
    with warnings.catch_warnings():
        # of torch 2.14, about a name that accelerate gives it and older torch has no other for
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        wrapped, wrapped_optimizer = accelerator.prepare(model, optimizer)
    try:
        yield wrapped, wrapped_optimizer
    finally:
        accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
        if not had_own_forward:
            # what accelerate puts back shadows the class's method and ties the model to itself
            vars(model).pop("forward", None)
        forget_preparation(model)


def share_buffers(module: nn.Module, accelerator: Accelerator) -> None:
    """Give every process the first one's buffers: each has seen other images in its batch norms."""
    if accelerator.num_processes > 1:
        with torch.no_grad():
            broadcast(list(module.buffers()))


def scaler_state(accelerator: Accelerator) -> ScalerState | None:
    """The loss scaling of fp16; None in other precisions."""
    if accelerator.scaler is None:
        return None
    return ScalerState(scale=accelerator.scaler.get_scale(), growth_tracker=growth_tracker(accelerator.scaler))


def restore_scaler(accelerator: Accelerator, state: ScalerState | None) -> None:
    """Put the loss scaling back."""
    if accelerator.scaler is not None and state is not None:
        restore_scale(accelerator.scaler, scale=state.scale, growth=state.growth_tracker)


def highest(value: int, accelerator: Accelerator) -> int:
    """The highest of the processes' values, the same for all of them; each must call this."""
    if accelerator.num_processes == 1:
        return value
    return int(accelerator.gather(torch.tensor([value], device=accelerator.device)).max())
