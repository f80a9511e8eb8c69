# mypy: untyped-calls-exclude=accelerate

"""The beginning of a training: its batches, its checkpoints, and where it goes on."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from accelerate.accelerator import Accelerator

from ecd_deploy.data import Batches, DataSplits, LoaderBatches, TrainBatches
from ecd_deploy.data.augmentation import find_augmenter
from ecd_deploy.data.plan import StepPlan
from ecd_deploy.distill import TrainingModel
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.training.checkpoints.identity import identify, require_same_training
from ecd_deploy.training.checkpoints.resume import find_start
from ecd_deploy.training.checkpoints.state import Checkpoint, TrainingIdentity
from ecd_deploy.training.checkpoints.store import CheckpointStore
from ecd_deploy.training.checkpoints.weights import assign_weights
from ecd_deploy.training.metrics import MetricsLog
from ecd_deploy.training.names import CHECKPOINTS_FOLDER


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What a training has before its first step.

    Attributes:
        model: what is trained, with the weights that it begins with.
        data: images of the run.
        recipe: of the run.
        directory: of the run.
        accelerator: device and processes.
        batches: of the training split.
        identity: what every checkpoint says it is of.
        store: for checkpoints.
        start: the checkpoint that it goes on from; None at the beginning.
    """

    model: TrainingModel
    data: DataSplits
    recipe: Recipe
    directory: Path
    accelerator: Accelerator
    batches: Batches
    identity: TrainingIdentity
    store: CheckpointStore
    start: Checkpoint | None

    def logging(self) -> AbstractContextManager[MetricsLog | None]:
        """Open the log of metrics, in the first process."""
        if not self.accelerator.is_main_process:
            return nullcontext()
        return MetricsLog(self.directory, () if self.start is None else self.start.state.history, self.recipe)


def begin(
    model: TrainingModel,
    data: DataSplits,
    recipe: Recipe,
    directory: Path,
    accelerator: Accelerator,
    *,
    resume: bool,
    accept_changes: bool = False,
) -> Begun:
    """Find where a training starts, and give the model the weights that it has there; see `train`."""
    batches = _train_batches(data, recipe, accelerator)
    identity = identify(recipe, data, len(batches), accelerator)
    store = CheckpointStore(directory / CHECKPOINTS_FOLDER)
    start = find_start(store, accelerator, resume=resume)
    if start is not None:
        require_same_training(start.state, identity, accept_changes=accept_changes)
        assign_weights(model, start.weights)
    return Begun(
        model=model,
        data=data,
        recipe=recipe,
        directory=directory,
        accelerator=accelerator,
        batches=batches,
        identity=identity,
        store=store,
        start=start,
    )


def _train_batches(data: DataSplits, recipe: Recipe, accelerator: Accelerator) -> Batches:
    augmenter = find_augmenter(recipe, data)
    plan = StepPlan(
        images=len(data.train_labels),
        batch_size=recipe.train.batch_size,
        seed=recipe.seed,
        process_index=accelerator.process_index,
        process_count=accelerator.num_processes,
        balanced=data.train_labels if recipe.train.sampling == "balanced" else None,
    )
    if data.train_files is not None:
        return LoaderBatches(
            data.train_files,
            data.normalisation,
            plan,
            recipe.data,
            image_size=data.image_size,
            augmenter=augmenter,
            device=accelerator.device,
        )
    return TrainBatches(
        data.train,
        data.normalisation,
        plan,
        crop_padding=recipe.data.crop_padding,
        horizontal_flip=recipe.data.horizontal_flip,
        augmenter=augmenter,
        device=accelerator.device,
    )
