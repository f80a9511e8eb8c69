# mypy: untyped-calls-exclude=accelerate

"""The training itself: one optimiser, every head from scratch, in one stage (paper, section 3.1)."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import torch
from accelerate.utils.operations import gather_object

from ecd_deploy.data import DataSplits
from ecd_deploy.distill import TrainingModel
from ecd_deploy.distill.convolution.triton.check import reasons_unused
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.training.acceleration import prepare_process, prepared
from ecd_deploy.training.begin import begin
from ecd_deploy.training.progress import OnTrainingEvent, StoppedEarly, TrainingStarted, ignore
from ecd_deploy.training.scores import DeviceUse, TrainingResult, best_score
from ecd_deploy.training.steps.cuda_graph import GraphedWork, graphed
from ecd_deploy.training.steps.layout import laid_out
from ecd_deploy.training.steps.optimizer import build_optimizer, optimizer_state
from ecd_deploy.training.steps.precision import precision_of
from ecd_deploy.training.steps.step import StepWork
from ecd_deploy.training.stopping import heed_signals
from ecd_deploy.training.trainer import Trainer


def train(
    model: TrainingModel,
    data: DataSplits,
    recipe: Recipe,
    directory: Path,
    *,
    resume: bool,
    accept_changes: bool = False,
    on_event: OnTrainingEvent = ignore,
) -> TrainingResult:
    """Train all heads of a model together and leave metrics and checkpoints in the run directory.

    Under `accelerate launch` every process calls this; the first one writes. SIGINT and SIGTERM let
    the step that is running end, save, and raise.

    Args:
        model: trained in place; it ends with the last epoch's weights, on the device of the training.
        data: images of the run; the test split is not touched.
        recipe: `train`, `seed` and, of `data`, what concerns loading and augmentation are used.
        directory: gets `metrics.jsonl`, `checkpoints/` and, if asked for, `tensorboard/`.
        resume: continue after the newest whole checkpoint, or start if there is none.
        accept_changes: resume although the recipe, the images or the machine differ.
        on_event: is told of the progress, in the first process.

    Raises:
        TrainingError: the loss or a weight is not finite; the last good checkpoint is kept.
        Interrupted: a signal came; everything is saved.
        CheckpointError: checkpoints exist and none is whole, or one cannot be written.
        ArtefactError: the directory cannot be written.
        RunDirectoryError: checkpoints exist and `resume` is False, or they are of another training.
        RecipeError: the device cannot train in the recipe's precision.
        DataError: there are too few images for a step, or one cannot be read any more.
    """
    accelerator = prepare_process(recipe.train)
    if not accelerator.is_main_process:
        on_event = ignore
    begun = begin(model, data, recipe, directory, accelerator, resume=resume, accept_changes=accept_changes)
    optimizer = build_optimizer(model, recipe.train, accelerator.device)
    with (
        closing(begun.batches),
        precision_of(recipe.train),
        laid_out(model, recipe, data, accelerator),
        prepared(accelerator, model, optimizer) as (wrapped, wrapped_optimizer),
        begun.logging() as log,
        heed_signals() as stop,
    ):
        trainer = Trainer(
            begun=begun,
            optimizer=wrapped_optimizer,
            optimizer_state=optimizer_state(model, optimizer),
            log=log,
            on_event=on_event,
            stop=stop,
        )
        work = graphed(
            StepWork(
                model=wrapped,
                optimizer=wrapped_optimizer,
                accelerator=accelerator,
                objective=trainer.objective,
                losses=trainer.losses,
                clip_norm=recipe.train.clip_norm,
                average=trainer.average,
                parts=recipe.train.gradient_accumulation,
            ),
            recipe,
        )
        steps = len(begun.batches)
        on_event(TrainingStarted(epochs=recipe.train.epochs, batches_per_epoch=steps, batches_done=trainer.step))
        while not trainer.is_finished:
            wrapped.train()
            trainer.run_epoch(work)
        if recipe.train.patience is not None and len(trainer.history) < recipe.train.epochs:
            on_event(StoppedEarly(patience=recipe.train.patience))
        return result_of(trainer, work)


def result_of(trainer: Trainer, work: object) -> TrainingResult:
    """Describe a training that has ended, whose steps `work` did."""
    history, accelerator = trainer.history, trainer.accelerator
    graph = work if isinstance(work, GraphedWork) and not work.is_eager else None
    return TrainingResult(
        epochs=history[-1].epoch,
        steps=history[-1].step,
        last=history[-1].score(),
        best=best_score(history, trainer.recipe.train.select),
        seconds=sum(record.seconds for record in history),
        threads=torch.get_num_threads(),
        processes=accelerator.num_processes,
        use=DeviceUse(
            device=accelerator.device.type,
            channels_last=trainer.model.layout == torch.channels_last,
            tf32_convolutions=torch.backends.cudnn.allow_tf32,
            tf32_products=torch.backends.cuda.matmul.allow_tf32,
            cudnn_benchmark=torch.backends.cudnn.benchmark,
            cuda_graph=graph is not None,
            fused=0 if graph is None else graph.saved,
            triton_unused=tuple(dict.fromkeys(gather_object(list(reasons_unused())))),
        ),
        stacked_with=trainer.stacked_with,
    )
