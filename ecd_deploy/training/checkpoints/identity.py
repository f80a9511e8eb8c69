# mypy: untyped-calls-exclude=accelerate

"""Which training this is, and whether a checkpoint is of the same one."""

from __future__ import annotations

import logging

import torch
from accelerate.accelerator import Accelerator

from ecd_deploy.data import DataSplits
from ecd_deploy.errors import RunDirectoryError
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.training.checkpoints.state import CheckpointState, TrainingIdentity

_logger = logging.getLogger(__name__)


def identify(recipe: Recipe, data: DataSplits, steps_per_epoch: int, accelerator: Accelerator) -> TrainingIdentity:
    """Describe what decides over the bits of the training that is about to start."""
    return TrainingIdentity(
        recipe_digest=recipe.digest(),
        data_digest=data.digest,
        steps_per_epoch=steps_per_epoch,
        threads=torch.get_num_threads(),
        processes=accelerator.num_processes,
        device=accelerator.device.type,
        torch=torch.__version__,
    )


def require_same_training(state: CheckpointState, now: TrainingIdentity, *, accept_changes: bool) -> None:
    """Refuse a checkpoint of another training, unless what changed is accepted and can be.

    Raises:
        RunDirectoryError: naming all that differs.
    """
    before = state.training.model_dump()
    differences = [
        f"{name.replace('_', ' ')}: {before[name]} in the checkpoint, {value} now"
        for name, value in now.model_dump().items()
        if before[name] != value
    ]
    if not differences:
        return
    text = "\n  ".join(differences)
    if state.training.steps_per_epoch != now.steps_per_epoch:
        raise RunDirectoryError(
            f"the checkpoint cannot be resumed, since its steps are other images:\n  {text}\n"
            "train.batch_size, the data or the process count differ"
        )
    if not accept_changes:
        raise RunDirectoryError(
            f"the checkpoint is of another training, so the result would not be that of an uninterrupted one:\n  {text}"
            "\nto resume nevertheless, add --accept-changes"
        )
    _logger.warning("resuming although the training differs, as --accept-changes asks:\n  %s", text)
