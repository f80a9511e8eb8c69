# mypy: untyped-calls-exclude=accelerate

"""Steps of any variant on small random images, on the device that Accelerate finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ecd_deploy.data import Batch
from ecd_deploy.distill import build_objective
from ecd_deploy.models import build_student
from ecd_deploy.recipe.method import MethodConfig
from ecd_deploy.recipe.train import TrainConfig
from ecd_deploy.training.acceleration import build_accelerator
from ecd_deploy.training.methods import build_training_model
from ecd_deploy.training.steps.average import WeightAverage
from ecd_deploy.training.steps.losses import EpochLosses
from ecd_deploy.training.steps.optimizer import build_optimizer, set_rate
from ecd_deploy.training.steps.step import StepWork
from tests.variants import VARIANTS

SGD = TrainConfig(learning_rate=0.05)
ADAMW = TrainConfig(optimizer="adamw", learning_rate=0.05, clip_norm=0.1, ema_decay=0.99)


def make_work(
    variant: str | Mapping[str, Any],
    config: TrainConfig = SGD,
    *,
    rate_on_device: bool = True,
    student: str = "resnet8",
    side: int = 12,
) -> StepWork:
    torch.manual_seed(0)
    named = VARIANTS[variant] if isinstance(variant, str) else variant
    method = MethodConfig.model_validate({"kernels": 3, **named})
    model = build_training_model(method, build_student(student, num_classes=4), example=torch.randn(2, 3, side, side))
    accelerator = build_accelerator(config)
    optimizer = build_optimizer(model, config, accelerator.device)
    for group in optimizer.param_groups:
        group["lr"] = torch.as_tensor(group["lr"]) if rate_on_device else group["lr"]
    prepared_model, prepared_optimizer = accelerator.prepare(model, optimizer)
    losses = EpochLosses(accelerator)
    losses.begin_epoch(1)
    return StepWork(
        model=prepared_model.train(),
        optimizer=prepared_optimizer,
        accelerator=accelerator,
        objective=build_objective(method),
        losses=losses,
        clip_norm=config.clip_norm,
        average=None if config.ema_decay is None else WeightAverage(model, config.ema_decay),
    )


def make_batch(seed: int, images: int = 4, device: torch.device | None = None) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    pixels, labels = torch.randn(images, 3, 12, 12, generator=draw), torch.randint(4, (images,), generator=draw)
    return Batch(pixels.to(device), labels.to(device), torch.arange(images, device=device), images)


def do_steps(work: StepWork, do: Callable[[Batch], None]) -> None:
    """Do steps of two sizes in turns, with a rate that changes."""
    for step, images in enumerate((4, 4, 3, 4, 3)):
        set_rate(work.optimizer, 0.1 / (step + 1))
        work.losses.begin_step(step + 1, images)
        if work.average is not None:
            work.average.begin_step(step)
        do(make_batch(step, images, work.accelerator.device))
