"""Step 1: train the student, with or without its teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ecd_deploy.baselines.distillation import TrainedTeacher
from ecd_deploy.data import DataSplits
from ecd_deploy.distill import TrainingModel
from ecd_deploy.distill.convolution.attention import AttentionConv2d
from ecd_deploy.errors import DataError, EcdDeployError, RecipeError, RunDirectoryError
from ecd_deploy.models import build_student
from ecd_deploy.models.weights import StartWeights
from ecd_deploy.pipelines.record.epochs import read_epochs
from ecd_deploy.pipelines.record.names import (
    CHECKPOINTS_FOLDER,
    METRICS_NAME,
    START_NAME,
    TENSORBOARD_FOLDER,
    TRACKERS_NAME,
    TRAINING_NAME,
)
from ecd_deploy.pipelines.record.run_directory import RunDirectory, read_run
from ecd_deploy.pipelines.record.start import Start, read_start
from ecd_deploy.pipelines.steps.start import open_weights, start_of, start_student
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.training import EpochRecord, TrainingResult, load_weights
from ecd_deploy.training import train as train_model
from ecd_deploy.training.methods import build_training_model
from ecd_deploy.training.progress import OnTrainingEvent, ignore
from ecd_deploy.training.stack import train_stacked
from ecd_deploy.training.stackable import Member

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
    accept_changes: bool = False,
    on_event: OnTrainingEvent = ignore,
) -> Trained:
    """Train as the recipe says; leaves checkpoints, metrics and `training.json` in the run directory.

    Raises:
        RecipeError: the recipe does not fit the data.
        RunDirectoryError: the training cannot be resumed with these data or on this machine.
        TrainingError: the loss is not finite.
    """
    model = _begin(directory, data, accept_changes=accept_changes)
    result = train_model(
        model, data, directory.recipe, directory.root, resume=resume, accept_changes=accept_changes, on_event=on_event
    )
    return _end(directory, result)


def train_together(
    runs: Mapping[str, tuple[RunDirectory, DataSplits]], *, resume: bool
) -> list[Trained | EcdDeployError]:
    """Train several runs, by name, in the same steps; each leaves in its directory what `train` leaves there.

    Returns:
        What each gave, in their order.

    Raises:
        NotStackedError: they cannot share their steps; none has begun.
        EcdDeployError: as `train`, before the first step, and by a signal.
    """
    members = [
        Member(
            name=name,
            model=_begin(directory, data, accept_changes=False),
            data=data,
            recipe=directory.recipe,
            directory=directory.root,
        )
        for name, (directory, data) in runs.items()
    ]
    results = train_stacked(members, resume=resume)
    return [
        result if isinstance(result, EcdDeployError) else _end(directory, result)
        for result, (directory, _) in zip(results, runs.values(), strict=True)
    ]


def _begin(directory: RunDirectory, data: DataSplits, *, accept_changes: bool) -> TrainingModel:
    """Record what the run is of, and build what is trained."""
    try:
        directory.bind_data(data.digest, accept_changes=accept_changes)
    except DataError as error:
        raise RunDirectoryError(f"{error}; to resume anyway, add --accept-changes") from error
    weights = open_weights(directory.recipe, data)
    if weights is not None:
        _bind_start(directory, start_of(directory.recipe, data, weights), accept_changes=accept_changes)
    # What follows a training that is going on is stale, whenever it ends.
    directory.forget(TRAINING_NAME)
    return training_model(directory.recipe, data, weights)


def _end(directory: RunDirectory, result: TrainingResult) -> Trained:
    """Record what the training left."""
    for name in (METRICS_NAME, CHECKPOINTS_FOLDER, TENSORBOARD_FOLDER, TRACKERS_NAME):
        if (directory.root / name).exists():
            directory.record_folder(name)
    directory.write_json(TRAINING_NAME, result)
    return Trained(result, read_epochs(directory))


def train_as_worker(
    recipe: Recipe, root: Path, data: DataSplits, *, resume: bool, accept_changes: bool = False
) -> TrainingResult:
    """Take part in the training that the first process of an `accelerate launch` leads; only that one owns `root`."""
    model = training_model(recipe, data, open_weights(recipe, data))
    return train_model(model, data, recipe, root, resume=resume, accept_changes=accept_changes)


def _bind_start(directory: RunDirectory, start: Start, *, accept_changes: bool) -> None:
    """Record what the run starts from, and compare it ever after."""
    before = None if accept_changes else read_start(directory)
    if before is not None and before.digest != start.digest:
        raise RunDirectoryError(
            f"student.weights: {directory.root} started from {before.origin} with digest {before.digest}, now it is "
            f"{start.origin} with {start.digest}; to resume anyway, add --accept-changes"
        )
    directory.write_json(START_NAME, start)


def training_model(recipe: Recipe, data: DataSplits, weights: StartWeights | None = None) -> TrainingModel:
    """Build the student and what trains with it; the seed, and the weights to start from, decide the initial student.

    Torch's threads are set first: the last bits of the initial tensors depend on their number.

    Args:
        recipe: of the run.
        data: its images.
        weights: that the recipe names; None where the weights of a checkpoint follow, and with a fresh student.

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
    if weights is None:
        student, taken = student_factory(recipe, data)(), frozenset[str]()
    else:
        student, taken = start_student(recipe.student, weights, data.classes, partial(_build, recipe, data))
    model = build_training_model(recipe.method, student, example=example_images(data), trained=trained)
    model.rates = dict.fromkeys(_of_backbone(model, recipe, taken), recipe.student.backbone_rate)
    return model


def _of_backbone(model: TrainingModel, recipe: Recipe, taken: frozenset[str]) -> Iterator[str]:
    """Names of the parameters that came from the weights, and of the teacher's that started as they did."""
    networks = ("student.", "teacher.", "joint.teacher.") if recipe.method.teacher_init == "student" else ("student.",)
    copied = {f"{name}.convolution": name for name, part in model.named_modules() if isinstance(part, AttentionConv2d)}
    for name, _ in model.named_parameters():
        owner, _, last = name.rpartition(".")
        origin = f"{copied.get(owner, owner)}.{last}"
        if any(origin.startswith(network) and origin.removeprefix(network) in taken for network in networks):
            yield name


def _build(recipe: Recipe, data: DataSplits, classes: int) -> nn.Module:
    return build_student(recipe.student.name, num_classes=classes, in_channels=data.in_channels)


def student_factory(recipe: Recipe, data: DataSplits) -> Callable[[], nn.Module]:
    """What builds the recipe's student for these data, untrained, from the global random state."""
    return partial(_build, recipe, data, len(data.classes))


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
    return TrainedTeacher(model.student, torch.from_numpy(data.train_labels))


def example_images(data: DataSplits) -> Tensor:
    """A few normalised training images, (N, C, H, W)."""
    return torch.from_numpy(data.normalisation.apply(data.train.images[:_EXAMPLE_IMAGES]))
