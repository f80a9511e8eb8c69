"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from ecd_deploy.recipe.train import TrainConfig


def learning_rate(step: int, config: TrainConfig, steps_per_epoch: int) -> float:
    """The rate of a step.

    Warm-up rises linearly and reaches the full rate with its last step. Cosine then falls to zero
    over the steps that remain; the milestones of multistep count from the start of the training.

    Args:
        step: optimiser steps done before it.
        config: the recipe's training section.
        steps_per_epoch: optimiser steps of an epoch.
    """
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup_steps:
        return config.learning_rate * (step + 1) / warmup_steps * _multistep(step, config, steps_per_epoch)
    if config.schedule == "multistep":
        return config.learning_rate * _multistep(step, config, steps_per_epoch)
    progress = (step - warmup_steps) / (config.epochs * steps_per_epoch - warmup_steps)
    return config.learning_rate * (1 + math.cos(math.pi * progress)) / 2


def _multistep(step: int, config: TrainConfig, steps_per_epoch: int) -> float:
    if config.schedule != "multistep":
        return 1.0
    passed = sum(step >= milestone * steps_per_epoch for milestone in config.milestones)
    return float(config.decay**passed)
