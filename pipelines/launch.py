"""What `accelerate launch` means here: every process trains, the first one does the rest."""

from __future__ import annotations

import os
from pathlib import Path

from ecd_deploy.config import Recipe
from ecd_deploy.data import DataSplits
from ecd_deploy.pipelines.train import training_model
from ecd_deploy.training import train as train_model


def is_main_process() -> bool:
    """Whether this is the first process of a launch, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def train_as_worker(
    recipe: Recipe, root: Path, data: DataSplits, *, resume: bool, accept_changes: bool = False
) -> None:
    """Take part in the training that the first process leads; only that one owns the run directory."""
    model = training_model(recipe, data)
    train_model(model, data, recipe, root, resume=resume, console=None, accept_changes=accept_changes)
