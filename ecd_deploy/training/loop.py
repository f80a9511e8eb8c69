# mypy: untyped-calls-exclude=accelerate

"""The training itself: one optimiser, every head from scratch, in one stage (paper, section 3.1)."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from accelerate.accelerator import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from rich.console import Console
from torch import nn

from ecd_deploy.config import Recipe
from ecd_deploy.data import Batch, DataSplits, TrainBatches
from ecd_deploy.data.draws import Purpose, stream_key
from ecd_deploy.distill import TrainingModel, training_loss
from ecd_deploy.errors import TrainingError
from ecd_deploy.training.acceleration import build_accelerator, prepared, restore_scaler, scaler_state, share_buffers
from ecd_deploy.training.checkpoint import Checkpoint, CheckpointState, CheckpointStore
from ecd_deploy.training.evaluation import top1
from ecd_deploy.training.losses import EpochLosses
from ecd_deploy.training.metrics import MetricsLog
from ecd_deploy.training.optimizer import build_optimizer, momentum_of, restore_momentum
from ecd_deploy.training.progress import TrainingProgress
from ecd_deploy.training.resume import find_start, require_same_training
from ecd_deploy.training.schedule import learning_rate
from ecd_deploy.training.scores import EpochRecord, TrainingResult, best_score
from ecd_deploy.training.weights import CHECKPOINTS, assign_weights


def train(
    model: TrainingModel,
    data: DataSplits,
    recipe: Recipe,
    directory: Path,
    *,
    resume: bool,
    console: Console | None,
) -> TrainingResult:
    """Train all heads of a model together and leave metrics and checkpoints in the run directory.

    Under `accelerate launch` every process calls this; the first one writes.

    Args:
        model: trained in place; it ends with the last epoch's weights, on the device of the training.
        data: images of the run; the test split is not touched.
        recipe: `train`, `data.crop_padding`, `data.horizontal_flip` and `seed` are used.
        directory: gets `metrics.jsonl`, `checkpoints/` and, if asked for, `tensorboard/`.
        resume: go on after the newest whole checkpoint, or start if there is none.
        console: for progress; None is silent.

    Raises:
        TrainingError: the loss or a weight is not finite; the last good checkpoint is kept.
        CheckpointError: checkpoints exist and none is whole, or one cannot be written.
        ArtefactError: the directory cannot be written.
        RunDirectoryError: checkpoints exist and `resume` is False, or they are of another training.
        RecipeError: the device cannot train in the recipe's precision.
        DataError: there are too few images for a step.
    """
    config = recipe.train
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    accelerator = build_accelerator(config)
    batches = _train_batches(data, recipe, accelerator)
    store = CheckpointStore(directory / CHECKPOINTS)
    start = find_start(store, accelerator, resume=resume)

    optimizer = build_optimizer(model, config)
    if start is not None:
        require_same_training(start.state, recipe, data, len(batches), accelerator)
        assign_weights(model, start.weights)
    with prepared(accelerator, model, optimizer) as (wrapped, wrapped_optimizer):
        if start is not None:
            restore_momentum(model, optimizer, start.momentum)
            restore_scaler(accelerator, start.state.scaler)
        history = () if start is None else start.state.history
        with (
            _metrics_log(directory, history, recipe, accelerator) as log,
            _progress(console, len(history), recipe, batches, accelerator) as progress,
        ):
            for epoch in range(len(history) + 1, config.epochs + 1):
                started = time.perf_counter()
                progress.start_epoch(epoch)
                wrapped.train()
                losses = _train_epoch(wrapped, wrapped_optimizer, accelerator, batches, recipe, epoch, progress)
                share_buffers(model, accelerator)
                _require_finite(model, epoch)
                accuracies = top1(model, data.validation, data.normalisation, accelerator, config.batch_size)
                record = _record(epoch, batches, recipe, losses, accuracies, time.perf_counter() - started)
                history = (*history, record)
                if log is not None:
                    log.append(record)
                    store.save(_checkpoint(model, optimizer, accelerator, history, recipe, data))
                accelerator.wait_for_everyone()
                progress.finish_epoch(record)
    return _result(history, accelerator)


def _train_batches(data: DataSplits, recipe: Recipe, accelerator: Accelerator) -> TrainBatches:
    return TrainBatches(
        data.train,
        data.normalisation,
        batch_size=recipe.train.batch_size,
        seed=recipe.seed,
        crop_padding=recipe.data.crop_padding,
        horizontal_flip=recipe.data.horizontal_flip,
        process_index=accelerator.process_index,
        process_count=accelerator.num_processes,
        device=accelerator.device,
    )


def _metrics_log(
    directory: Path, history: tuple[EpochRecord, ...], recipe: Recipe, accelerator: Accelerator
) -> AbstractContextManager[MetricsLog | None]:
    if not accelerator.is_main_process:
        return nullcontext()
    return MetricsLog(directory, history, tensorboard=recipe.train.tensorboard)


def _progress(
    console: Console | None, epochs_done: int, recipe: Recipe, batches: TrainBatches, accelerator: Accelerator
) -> TrainingProgress:
    return TrainingProgress(
        console if accelerator.is_main_process else None,
        epochs=recipe.train.epochs,
        steps_per_epoch=len(batches),
        steps_done=epochs_done * len(batches),
    )


def _train_epoch(
    model: nn.Module,
    optimizer: AcceleratedOptimizer,
    accelerator: Accelerator,
    batches: TrainBatches,
    recipe: Recipe,
    epoch: int,
    progress: TrainingProgress,
) -> tuple[float, ...]:
    """Do the epoch's steps; returns the mean objective and each head's mean cross-entropy."""
    losses = EpochLosses(epoch, accelerator, label_smoothing=recipe.train.label_smoothing)
    for step, batch in enumerate(batches.epoch(epoch), start=(epoch - 1) * len(batches)):
        # drawn anew for each step, so that dropout too is the same after a resume
        torch.manual_seed(stream_key(recipe.seed, Purpose.STEP, step, accelerator.process_index))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe.train, len(batches))
        optimizer.zero_grad()
        _backward(model, batch, accelerator, recipe, losses, step + 1)
        losses.check(step + 1)
        optimizer.step()
        progress.step()
    return losses.means()


def _backward(
    model: nn.Module, batch: Batch, accelerator: Accelerator, recipe: Recipe, losses: EpochLosses, step: int
) -> None:
    """Add up the gradients of the batch's parts; processes exchange them with the last part only."""
    parts = batch.split(recipe.train.gradient_accumulation)
    for part in parts:
        with nullcontext() if part is parts[-1] else accelerator.no_sync(model):
            outputs = model(part.images)
            loss = training_loss(outputs, part.labels, label_smoothing=recipe.train.label_smoothing)
            # gradients are averaged over processes: this makes the sum the mean over the step's images
            accelerator.backward(loss * (len(part) * accelerator.num_processes / part.step_images))
        losses.add(step, loss, outputs, part.labels)


def _require_finite(model: nn.Module, epoch: int) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise TrainingError(
                f"{name} is not finite after epoch {epoch}, in its last step; the checkpoint of the epoch before is "
                "kept. Lower train.learning_rate or add train.warmup_epochs"
            )


def _record(
    epoch: int,
    batches: TrainBatches,
    recipe: Recipe,
    losses: tuple[float, ...],
    accuracies: tuple[float, ...],
    seconds: float,
) -> EpochRecord:
    objective, student_loss, *teacher_losses = losses
    student_top1, *teacher_top1s = accuracies
    steps = epoch * len(batches)
    return EpochRecord(
        epoch=epoch,
        step=steps,
        loss=objective,
        student_loss=student_loss,
        teacher_loss=teacher_losses[0] if teacher_losses else None,
        validation_top1=student_top1,
        teacher_validation_top1=teacher_top1s[0] if teacher_top1s else None,
        learning_rate=learning_rate(steps - 1, recipe.train, len(batches)),
        seconds=seconds,
    )


def _checkpoint(
    model: nn.Module,
    optimizer: torch.optim.SGD,
    accelerator: Accelerator,
    history: tuple[EpochRecord, ...],
    recipe: Recipe,
    data: DataSplits,
) -> Checkpoint:
    state = CheckpointState(
        epoch=history[-1].epoch,
        step=history[-1].step,
        best=best_score(history),
        history=history,
        recipe_digest=recipe.digest(),
        data_digest=data.digest,
        threads=torch.get_num_threads(),
        processes=accelerator.num_processes,
        scaler=scaler_state(accelerator),
    )
    return Checkpoint(state, model.state_dict(), momentum_of(model, optimizer))


def _result(history: tuple[EpochRecord, ...], accelerator: Accelerator) -> TrainingResult:
    return TrainingResult(
        epochs=history[-1].epoch,
        steps=history[-1].step,
        last=history[-1].score(),
        best=best_score(history),
        seconds=sum(record.seconds for record in history),
        threads=torch.get_num_threads(),
        processes=accelerator.num_processes,
    )
