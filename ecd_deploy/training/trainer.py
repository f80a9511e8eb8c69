# mypy: untyped-calls-exclude=accelerate

"""A training in progress: its epochs, and the checkpoints from which any step can be resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from ecd_deploy.data import Batch, ImageTensors
from ecd_deploy.distill import PlainModel, TrainingModel
from ecd_deploy.errors import TrainingError
from ecd_deploy.training.acceleration import highest, restore_scaler, scaler_state, share_buffers
from ecd_deploy.training.begin import Begun
from ecd_deploy.training.checkpoints.state import Checkpoint, CheckpointState, RunningEpoch
from ecd_deploy.training.evaluation import Accuracy, evaluate, moved_if_they_fit
from ecd_deploy.training.methods import training_objective
from ecd_deploy.training.metrics import MetricsLog
from ecd_deploy.training.progress import BatchEnded, EpochEnded, OnTrainingEvent
from ecd_deploy.training.scores import EpochRecord, best_score, is_finished
from ecd_deploy.training.steps.average import WeightAverage
from ecd_deploy.training.steps.losses import EpochLosses, MeanLosses
from ecd_deploy.training.steps.optimizer import restore_state
from ecd_deploy.training.steps.schedule import learning_rate
from ecd_deploy.training.steps.step import begin_step
from ecd_deploy.training.stopping import StopRequest, stopped

# What the processes agree on between two steps; a higher number is the number of the signal that asked to stop.
_GO_ON = 0
_SAVE = 1
_STEPS_BETWEEN_AGREEMENTS = 50  # each makes the host wait for the accelerator


@dataclass
class Trainer:
    """A training between two steps; what it begins with gives it its state.

    Raises:
        CheckpointError: what it goes on from is of another optimiser.

    Attributes:
        begun: what it had before its first step; the weights of its start are in its model already.
        optimizer: whose rate is set; of this model, or of several that are trained in one step.
        optimizer_state: what it keeps of this model's parameters, by name; changed in place.
        log: for metrics; None in all processes but the first.
        on_event: is told of the progress.
        stop: whether a signal came.
        clock: in seconds, by which checkpoints are due.
        history: records of the finished epochs.
        step: optimiser steps done.
        running: of the epoch that a checkpoint left unfinished.
        stacked_with: names of the runs whose steps, or some of them, were also this one's.
        model, data, recipe, accelerator, batches: of what it had before.
        objective: what is minimised.
        losses: of the running epoch.
        average: of the student's weights, if the recipe wants it.
    """

    begun: Begun
    optimizer: Optimizer
    optimizer_state: Mapping[str, Tensor]
    log: MetricsLog | None
    on_event: OnTrainingEvent
    stop: StopRequest
    clock: Callable[[], float] = time.monotonic
    history: tuple[EpochRecord, ...] = ()
    step: int = 0
    running: RunningEpoch | None = None
    stacked_with: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        begun = self.begun
        self.model, self.data, self.recipe = begun.model, begun.data, begun.recipe
        self.accelerator, self.batches = begun.accelerator, begun.batches
        self._saved = self.clock()
        self._unsaved_best: Checkpoint | None = None
        self.losses = EpochLosses(self.accelerator)
        self.objective = training_objective(self.recipe, self.data, self.accelerator.device)
        decay = self.recipe.train.ema_decay
        self.average = None if decay is None else WeightAverage(self.model, decay)
        validation = self.data.validation
        self._validation = None if validation is None else moved_if_they_fit(validation, self.accelerator.device)
        if begun.start is not None:
            self._go_on_from(begun.start)

    def _go_on_from(self, start: Checkpoint) -> None:
        restore_state(self.optimizer_state, start.optimizer)
        restore_scaler(self.accelerator, start.state.scaler)
        if self.average is not None and start.average:
            self.average.restore(start.average)
        self.step, self.history, self.running = start.state.step, start.state.history, start.state.running
        self.stacked_with = tuple(sorted({*self.stacked_with, *start.state.stacked_with}))

    @property
    def is_finished(self) -> bool:
        """Whether no epoch is left to do."""
        return is_finished(self.history, self.recipe.train)

    def run_epoch(self, work: Callable[[Batch], None]) -> None:
        """Do the next epoch, each of its steps by `work`; see `epoch`."""
        for batch in self.epoch():
            work(batch)

    def epoch(self) -> Iterator[Batch]:
        """Yield what is left of the next epoch's batches, each to be trained on before the next one is asked for.

        Then evaluate, and leave the epoch's record and, if it is due, its checkpoint.

        Raises:
            TrainingError: the loss or a weight is not finite; the last good checkpoint is kept.
            Interrupted: a signal came; everything is saved.
            ArtefactError: a file cannot be written.
        """
        epoch = len(self.history) + 1
        before, self.running = self.running, None
        started = time.perf_counter() - (before.seconds if before else 0.0)
        yield from self._rest_of(epoch, before, started)
        self._require_finite()
        share_buffers(self.model, self.accelerator)
        if self.average is not None:
            share_buffers(self.average.student, self.accelerator)
        accuracy = self._evaluate()
        record = self._record(epoch, self.losses.means(), accuracy, time.perf_counter() - started)
        self.history = (*self.history, record)
        if self.log is not None:
            self.log.append(record)
        is_saved = self._save_epoch()
        self.on_event(EpochEnded(record=record, epochs=self.recipe.train.epochs))
        if signal_number := highest(self.stop.signal_number, self.accelerator):
            if not is_saved:
                self._save(None)
            raise stopped(signal_number, self.step, self._all_steps())

    def _evaluate(self) -> Accuracy | None:
        """What is got right of the validation split; None if there is none."""
        if self._validation is None:
            return None
        student = self.model.student if self.average is None else self.average.student
        if not self.recipe.train.teacher_accuracy:
            return self._accuracy(PlainModel(student), self._validation)
        found = self._accuracy(self.model, self._validation)
        if self.average is None:
            return found
        # the teacher receives features of the student that it is trained with
        averaged = self._accuracy(PlainModel(student), self._validation)
        return replace(averaged, top1=found.top1.model_copy(update={"student": averaged.top1.student}))

    def _accuracy(self, model: TrainingModel, images: ImageTensors) -> Accuracy:
        model.layout = self.model.layout
        return evaluate(model, images, self.data.normalisation, self.accelerator, self.recipe.train.batch_size)

    def _rest_of(self, epoch: int, before: RunningEpoch | None, started: float) -> Iterator[Batch]:
        """Yield an epoch's batches, from where it was left, and save after those steps that the recipe names."""
        steps = len(self.batches)
        losses = self.losses
        losses.begin_epoch(epoch, before.losses if before else ())
        for batch in self.batches.epoch(epoch, first_step=self.step - (epoch - 1) * steps):
            begin_step(
                self.optimizer,
                batch,
                self.recipe,
                losses,
                self.average,
                step=self.step,
                steps_per_epoch=steps,
                process_index=self.accelerator.process_index,
            )
            yield batch
            losses.check(self.step + 1)
            self.step += 1
            self.on_event(BatchEnded(epoch=epoch, step=self.step))
            decision = self._agree()
            ends_epoch = self.step == epoch * steps
            if decision > _SAVE or (decision == _SAVE and not ends_epoch):
                losses.check_now()
                self._require_finite()
                self._save(RunningEpoch(losses=losses.by_process(), seconds=time.perf_counter() - started))
            if decision > _SAVE:
                raise stopped(decision, self.step, self._all_steps())

    def _agree(self) -> int:
        """What all processes do after this step."""
        config = self.recipe.train
        is_due = bool(config.checkpoint_steps) and self.step % config.checkpoint_steps == 0
        if self.accelerator.device.type != "cpu" and self.step % _STEPS_BETWEEN_AGREEMENTS:
            return _SAVE if is_due else _GO_ON
        is_due |= 0 < config.checkpoint_minutes * 60 <= self.clock() - self._saved
        return highest(self.stop.signal_number or (_SAVE if is_due else _GO_ON), self.accelerator)

    def _save_epoch(self) -> bool:
        """Save the end of an epoch if it is due, or else keep it in memory if it is the best; whether it was saved."""
        is_last = self.is_finished
        is_due = is_last or self.clock() - self._saved >= _seconds_between_saves(self.accelerator.device)
        if highest(_SAVE if is_due else _GO_ON, self.accelerator) == _SAVE:
            self._save(None)
            return True
        best = best_score(self.history, self.recipe.train.select)
        if self.accelerator.is_main_process and best is not None and best.step == self.step:
            now = self._checkpoint(None)
            self._unsaved_best = Checkpoint(
                now.state, _copied(now.weights), _copied(now.optimizer), _copied(now.average)
            )
        return False

    def _save(self, running: RunningEpoch | None) -> None:
        if self.accelerator.is_main_process:
            checkpoint = self._checkpoint(running)
            unsaved, self._unsaved_best = self._unsaved_best, None
            # what this one calls the best must be there as well, unless it is that itself
            if unsaved is not None and unsaved.state.best == checkpoint.state.best and unsaved.state.step != self.step:
                self.begun.store.save(unsaved)
            self.begun.store.save(checkpoint)
        self.accelerator.wait_for_everyone()
        self._saved = self.clock()

    def _checkpoint(self, running: RunningEpoch | None) -> Checkpoint:
        state = CheckpointState(
            training=self.begun.identity,
            step=self.step,
            history=self.history,
            best=best_score(self.history, self.recipe.train.select),
            running=running,
            scaler=scaler_state(self.accelerator),
            stacked_with=self.stacked_with,
        )
        return Checkpoint(
            state,
            self.model.state_dict(),
            self.optimizer_state,
            {} if self.average is None else self.average.student.state_dict(),
        )

    def _require_finite(self) -> None:
        tensors = {name: tensor for name, tensor in self.model.state_dict().items() if tensor.is_floating_point()}
        # one number for all of them: the host waits for an accelerator at each that it reads
        if bool(get_total_norm(list(tensors.values()), norm_type=1.0).isfinite()):
            return
        for name, tensor in tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                epoch = len(self.history) + 1
                raise TrainingError(
                    f"{name} is not finite after step {self.step} (epoch {epoch}); the last checkpoint before it is "
                    "kept. Lower train.learning_rate or add train.warmup_epochs"
                )

    def _record(self, epoch: int, losses: MeanLosses, accuracy: Accuracy | None, seconds: float) -> EpochRecord:
        top1 = None if accuracy is None else accuracy.top1
        recalls = zip(self.data.classes, () if accuracy is None else accuracy.recalls, strict=accuracy is not None)
        return EpochRecord(
            epoch=epoch,
            step=self.step,
            loss=losses.total,
            student_loss=losses.student,
            teacher_loss=losses.teacher,
            ensemble_loss=losses.ensemble,
            logits_loss=losses.logits,
            features_loss=losses.features,
            branches_loss=losses.branches,
            pretrained_loss=losses.pretrained,
            validation_top1=None if top1 is None else top1.student,
            teacher_validation_top1=None if top1 is None else top1.teacher,
            ensemble_validation_top1=None if top1 is None else top1.ensemble,
            validation_balanced_accuracy=None if accuracy is None else accuracy.balanced,
            validation_recall={name: recall for name, recall in recalls if recall is not None} or None,
            learning_rate=learning_rate(self.step - 1, self.recipe.train, len(self.batches)),
            seconds=seconds,
        )

    def _all_steps(self) -> int:
        return self.recipe.train.epochs * len(self.batches)


def _seconds_between_saves(device: torch.device) -> float:
    """From a save to one at a later epoch's end; on a GPU an epoch can be as short as writing its checkpoint."""
    return 0.0 if device.type == "cpu" else 30.0


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
