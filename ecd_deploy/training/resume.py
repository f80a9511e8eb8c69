# mypy: untyped-calls-exclude=accelerate

"""Where a training starts: at the beginning, or after its newest whole checkpoint."""

from __future__ import annotations

import logging

import torch
from accelerate.accelerator import Accelerator

from ecd_deploy.config import Recipe
from ecd_deploy.data import DataSplits
from ecd_deploy.errors import RunDirectoryError
from ecd_deploy.training.checkpoint import Checkpoint, CheckpointState, CheckpointStore

_logger = logging.getLogger(__name__)


def find_start(store: CheckpointStore, accelerator: Accelerator, *, resume: bool) -> Checkpoint | None:
    """Return the checkpoint to go on from; None starts from scratch.

    Raises:
        CheckpointError: there are checkpoints, and none is whole.
        RunDirectoryError: there are checkpoints, and `resume` is False.
    """
    if not resume:
        if paths := store.paths():
            raise RunDirectoryError(
                f"{paths[-1].parent} holds checkpoints of an earlier training: resume it or choose another directory"
            )
        return None
    if accelerator.is_main_process:
        store.recover()
    accelerator.wait_for_everyone()
    return store.newest()


def require_same_training(
    state: CheckpointState, recipe: Recipe, data: DataSplits, steps_per_epoch: int, accelerator: Accelerator
) -> None:
    """Refuse a checkpoint that this training cannot go on from; warn of what only changes its result.

    Raises:
        RunDirectoryError: the images or the steps of an epoch differ.
    """
    if state.data_digest != data.digest:
        raise RunDirectoryError(
            f"the checkpoint was trained on other images: its data digest is {state.data_digest}, these have "
            f"{data.digest}"
        )
    if state.step != state.epoch * steps_per_epoch:
        raise RunDirectoryError(
            f"the checkpoint has done {state.step} steps in {state.epoch} epochs, the recipe has {steps_per_epoch} "
            "steps an epoch: train.batch_size or the data settings differ"
        )
    for what, before, now in (
        ("recipe digest", state.recipe_digest, recipe.digest()),
        ("thread count", state.threads, torch.get_num_threads()),
        ("process count", state.processes, accelerator.num_processes),
    ):
        if before != now:
            _logger.warning(
                "resuming with another %s (%s, it was %s): the result differs from an uninterrupted training's",
                what,
                now,
                before,
            )
