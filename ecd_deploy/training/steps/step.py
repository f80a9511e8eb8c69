# mypy: untyped-calls-exclude=accelerate

"""One optimiser step: forward, the objective, backward, update (paper, section 3.1)."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from accelerate.accelerator import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from ecd_deploy.data import Batch
from ecd_deploy.data.draws import Purpose, stream_key
from ecd_deploy.distill import Objective
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.training.steps.average import WeightAverage
from ecd_deploy.training.steps.counters import counted_at_once
from ecd_deploy.training.steps.losses import EpochLosses
from ecd_deploy.training.steps.optimizer import set_rate
from ecd_deploy.training.steps.schedule import learning_rate


@dataclass(frozen=True, kw_only=True)
class StepWork:
    """What the device does in a step, the same in every one: the numbers that change are in tensors, set before it.

    Attributes:
        model: as Accelerate prepared it.
        optimizer: likewise.
        accelerator: device and processes.
        objective: what is minimised.
        losses: adds up the losses.
        clip_norm: of all gradients together; None leaves them as they are.
        average: of the student's weights, if there is one.
        parts: into which a batch is cut; gradients are added up.
    """

    model: nn.Module
    optimizer: AcceleratedOptimizer
    accelerator: Accelerator
    objective: Objective
    losses: EpochLosses
    clip_norm: float | None = None
    average: WeightAverage | None = None
    parts: int = 1

    def __call__(self, batch: Batch) -> None:
        """Compute the gradients and update; processes exchange gradients with the last part only."""
        self.optimizer.zero_grad()
        parts = batch.split(self.parts)
        for part in parts:
            with nullcontext() if part is parts[-1] else self.accelerator.no_sync(self.model):
                arguments = (part.images, part.indices) if self.objective.pretrained else (part.images,)
                with counted_at_once(self.model):
                    outputs = self.model(*arguments)
                terms = self.objective(outputs, part.targets)
                loss = terms.total
                # gradients are averaged over processes: this makes the sum the mean over the step's images
                share = len(part) * self.accelerator.num_processes / part.step_images
                self.accelerator.backward(loss if share == 1 else loss * share)
            self.losses.add(loss, terms, len(part))
        self.losses.watch()
        if self.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update()

    def changed(self) -> list[Tensor]:
        """Every tensor that a step changes in place: weights, buffers, optimiser, average, sums of losses."""
        momentum = (value for state in self.optimizer.state.values() for value in state.values())
        return [
            *(parameter.detach() for parameter in self.model.parameters()),
            *self.model.buffers(),
            *(value for value in momentum if isinstance(value, Tensor)),
            *self.losses.tensors,
            *(() if self.average is None else self.average.tensors),
        ]


def begin_step(
    optimizer: Optimizer,
    batch: Batch,
    recipe: Recipe,
    losses: EpochLosses,
    average: WeightAverage | None = None,
    *,
    step: int,
    steps_per_epoch: int,
    process_index: int = 0,
) -> None:
    """Set what differs from step to step before the work of the one after `step` others.

    Everything random in that work is a function of (seed, step, process).

    Args:
        optimizer: of the training.
        batch: images of the step on this process.
        recipe: of the run.
        losses: of the epoch.
        average: of the student's weights, if there is one.
        step: optimiser steps done before.
        steps_per_epoch: optimiser steps of an epoch.
        process_index: of this process.
    """
    # drawn anew for each step, so that dropout too is the same after a resume
    torch.manual_seed(stream_key(recipe.seed, Purpose.STEP, step, process_index))
    set_rate(optimizer, learning_rate(step, recipe.train, steps_per_epoch))
    losses.begin_step(step + 1, len(batch))
    if average is not None:
        average.begin_step(step)
