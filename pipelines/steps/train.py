"""Step 1: train the student, with or without its teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from ecd_deploy.baselines.distillation import TrainedTeacher
from ecd_deploy.data import DataSplits
from ecd_deploy.distill import TrainingModel
from ecd_deploy.errors import DataError, RecipeError, RunDirectoryError
from ecd_deploy.models import build_student
from ecd_deploy.pipelines.record.epochs import read_epochs
from ecd_deploy.pipelines.record.names import CHECKPOINTS_FOLDER, METRICS_NAME, TENSORBOARD_FOLDER, TRAINING_NAME
from ecd_deploy.pipelines.record.run_directory import RunDirectory, read_run
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.training import EpochRecord, TrainingResult, load_weights
from ecd_deploy.training import train as train_model
from ecd_deploy.training.methods import build_training_model

_EXAMPLE_IMAGES = 8


@dataclass(frozen=True)
class Trained:
    """A finished training: its result, and what was recorded of each epoch."""

    result: TrainingResult
    epochs: tuple[EpochRecord, ...]


def train(
    directory: RunDirectory,
    data: DataSplits,
    *,
    resume: bool,
    console: Console | None,
    accept_changes: bool = False,
) -> Trained:
    """Train as the recipe says; leaves checkpoints, metrics and `training.json` in the run directory.

    Raises:
        RecipeError: the recipe does not fit the data.
        RunDirectoryError: the training cannot be resumed with these data or on this machine.
        TrainingError: the loss is not finite.
    """
    try:
        directory.bind_data(data.digest, accept_changes=accept_changes)
    except DataError as error:
        raise RunDirectoryError(f"{error}; to resume anyway, add --accept-changes") from error
    # What follows a training that is going on is stale, whenever it ends.
    directory.forget(TRAINING_NAME)
    model = training_model(directory.recipe, data)
    result = train_model(
        model, data, directory.recipe, directory.root, resume=resume, console=console, accept_changes=accept_changes
    )
    for name in (METRICS_NAME, CHECKPOINTS_FOLDER, TENSORBOARD_FOLDER):
        if (directory.root / name).exists():
            directory.record_folder(name)
    directory.write_json(TRAINING_NAME, result)
    return Trained(result, read_epochs(directory))


def train_as_worker(
    recipe: Recipe, root: Path, data: DataSplits, *, resume: bool, accept_changes: bool = False
) -> None:
    """Take part in the training that the first process of an `accelerate launch` leads; only that one owns `root`."""
    model = training_model(recipe, data)
    train_model(model, data, recipe, root, resume=resume, console=None, accept_changes=accept_changes)


def training_model(recipe: Recipe, data: DataSplits) -> TrainingModel:
    """Build the student and what trains with it; the seed alone decides the initial student.

    Torch's threads are set first: the last bits of the initial tensors depend on their number.

    Raises:
        RecipeError: `student.num_classes` differs from the data's.
        StudentError: the student cannot be built or has no such stages.
        RunDirectoryError: the run of the trained teacher is absent, unfinished or of other images.
        UsageError: an extra is not installed.
    """
    classes = len(data.classes)
    expected = recipe.student.num_classes
    if expected is not None and expected != classes:
        raise RecipeError(f"student.num_classes is {expected}, but the data have {classes} classes")
    if recipe.train.threads is not None:
        torch.set_num_threads(recipe.train.threads)
    trained = None if recipe.method.pretrained is None else _trained_teacher(Path(recipe.method.pretrained.run), data)
    torch.manual_seed(recipe.seed)
    return build_training_model(
        recipe.method, student_factory(recipe, data)(), example=example_images(data), trained=trained
    )


def student_factory(recipe: Recipe, data: DataSplits) -> Callable[[], nn.Module]:
    """What builds the recipe's student for these data, untrained, from the global random state."""
    return partial(build_student, recipe.student.name, num_classes=len(data.classes), in_channels=data.in_channels)


def _trained_teacher(root: Path, data: DataSplits) -> TrainedTeacher:
    """Take the student of a finished run, with the weights that its recipe selects."""
    try:
        directory = read_run(root)
        directory.require(TRAINING_NAME)
    except RunDirectoryError as error:
        raise RunDirectoryError(f"method.pretrained.run: {error}") from error
    if directory.manifest.data_digest != data.digest:
        raise RunDirectoryError(
            f"method.pretrained.run: {root} was trained on other images, or with another validation split: its data "
            f"have digest {directory.manifest.data_digest}, these have {data.digest}; use the same [data] and seed"
        )
    model = training_model(directory.recipe, data)
    load_weights(root, directory.recipe.train.select, model)
    return TrainedTeacher(model.student, torch.from_numpy((data.train_files or data.train).labels))


def example_images(data: DataSplits) -> Tensor:
    """A few normalised training images, (N, C, H, W)."""
    return torch.from_numpy(data.normalisation.apply(data.train.images[:_EXAMPLE_IMAGES]))
