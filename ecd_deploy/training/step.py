# mypy: untyped-calls-exclude=accelerate

"""One optimiser step: forward, the objective, backward, update (paper, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from accelerate.accelerator import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn

from ecd_deploy.data import Batch
from ecd_deploy.data.draws import Purpose, stream_key
from ecd_deploy.distill import Objective
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.training.losses import EpochLosses
from ecd_deploy.training.schedule import learning_rate


def train_step(
    model: nn.Module,
    optimizer: AcceleratedOptimizer,
    accelerator: Accelerator,
    batch: Batch,
    recipe: Recipe,
    objective: Objective,
    losses: EpochLosses,
    *,
    step: int,
    steps_per_epoch: int,
) -> None:
    """Do the step after `step` others; everything random in it is a function of (seed, step, process).

    Raises:
        TrainingError: the loss is not finite.
    """
    # drawn anew for each step, so that dropout too is the same after a resume
    torch.manual_seed(stream_key(recipe.seed, Purpose.STEP, step, accelerator.process_index))
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, recipe.train, steps_per_epoch)
    optimizer.zero_grad()
    _backward(model, batch.split(recipe.train.gradient_accumulation), accelerator, objective, losses, step + 1)
    losses.check(step + 1)
    optimizer.step()


def _backward(
    model: nn.Module,
    parts: Sequence[Batch],
    accelerator: Accelerator,
    objective: Objective,
    losses: EpochLosses,
    step: int,
) -> None:
    """Add up the gradients of the batch's parts; processes exchange them with the last part only."""
    for part in parts:
        with nullcontext() if part is parts[-1] else accelerator.no_sync(model):
            arguments = (part.images, part.indices) if objective.pretrained else (part.images,)
            terms = objective(model(*arguments), part.labels)
            loss = terms.total
            # gradients are averaged over processes: this makes the sum the mean over the step's images
            accelerator.backward(loss * (len(part) * accelerator.num_processes / part.step_images))
        losses.add(step, loss, terms, len(part))
