"""One run of a study: train an arm with a seed, and measure every head on the test images."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ecd_deploy.data import DataSplits, ImageTensors, eval_batches
from ecd_deploy.distill import TrainingModel, TrainingOutputs
from ecd_deploy.errors import EcdDeployError, Interrupted
from ecd_deploy.pipelines.record.environment import record_environment
from ecd_deploy.pipelines.record.names import ARM_NAME, CHECKPOINTS_FOLDER
from ecd_deploy.pipelines.record.run_directory import RunDirectory, create_run
from ecd_deploy.pipelines.steps.start import load_training_data, open_weights
from ecd_deploy.pipelines.steps.train import Trained, train, train_together, training_model
from ecd_deploy.pipelines.study.study import Study, recipe_of, run_directory
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.recipe.train import Select
from ecd_deploy.records import Record
from ecd_deploy.split import state_digest
from ecd_deploy.training import EpochRecord, EpochScore, HeadTop1, load_weights
from ecd_deploy.training.checkpoints.store import CheckpointStore
from ecd_deploy.training.stackable import NotStackedError

_KIB_PER_MIB = 1024
_BYTES_PER_MIB = 1024**2


class HeadBest(Record):
    """The epoch, from 1, in which a head had its highest validation top-1, a fraction; the earliest of equals."""

    epoch: int
    validation_top1: float


class HeadBests(Record):
    """Each head at its own best; None where there is no such head."""

    student: HeadBest
    teacher: HeadBest | None = None
    ensemble: HeadBest | None = None


class ArmRun(Record):
    """Written to `arm.json`.

    Attributes:
        arm: its name.
        seed: of data cut, order and initial values.
        recipe_digest: of the run's recipe.
        data_digest: of the images.
        initial_student: digest of the student before the first step.
        test_images: measured on.
        last: of the last epoch's weights.
        best: of the weights of the epoch that was best for the student, chosen on the validation split; None without
            one.
        best_epoch: that epoch; None likewise.
        own_best: of each head its own best epoch, whose weights are not kept; None in runs that did not record it, and
            without a validation split.
        seconds: wall time of all epochs.
        peak_memory_mib: largest resident memory of the process; None if it did other work too, if it went on with a
            training that another one began, or if a GPU trained.
        peak_gpu_memory_mib: most that torch's tensors held of the GPU; None without one, in a stack, or after a
            resumption.
        threads: of torch.
        stacked_with: runs of the study that were trained in the same steps, or in some of them; `seconds` are then
            those of all of them.
    """

    schema_version: Literal[1] = 1
    arm: str
    seed: int
    recipe_digest: str
    data_digest: str
    initial_student: str
    test_images: int
    last: HeadTop1
    best: HeadTop1 | None
    best_epoch: int | None
    own_best: HeadBests | None = None
    seconds: float
    peak_memory_mib: float | None
    peak_gpu_memory_mib: float | None = None
    threads: int
    stacked_with: tuple[str, ...] = ()


@dataclass(frozen=True)
class StackEnd:
    """How runs ended that were to be trained in the same steps.

    Attributes:
        runs: each one's record, or its error, in their order.
        obstacle: why they were trained one by one instead; None if they were not.
    """

    runs: tuple[ArmRun | EcdDeployError, ...]
    obstacle: str | None = None


def run_arm(study: Study, arm: str, seed: int, out: Path, *, own_process: bool) -> ArmRun:
    """Train and test one arm with one seed, or resume where it was interrupted.

    Raises:
        EcdDeployError: what training can raise; checkpoints stay.
    """
    with _opened(study, arm, seed, out) as run:
        return run.finish(train(run.directory, run.data, resume=True), own_process=own_process)


def run_stack(study: Study, keys: Sequence[tuple[str, int]], out: Path) -> StackEnd:
    """Train and test runs, by arm and seed, in the same steps if that can be done, else one after the other.

    Raises:
        Interrupted: a signal came; everything is saved.
    """
    names = [str(run_directory(Path(), *key)) for key in keys]
    try:
        with ExitStack() as opened:
            runs = [opened.enter_context(_opened(study, *key, out)) for key in keys]
            together = {name: (run.directory, run.data) for name, run in zip(names, runs, strict=True)}
            ends = train_together(together, resume=True)
            return StackEnd(
                tuple(
                    end if isinstance(end, EcdDeployError) else run.finish(end, own_process=False)
                    for run, end in zip(runs, ends, strict=True)
                )
            )
    except NotStackedError as error:
        obstacle = str(error)
    return StackEnd(tuple(_outcome(study, *key, out) for key in keys), obstacle)


def _outcome(study: Study, arm: str, seed: int, out: Path) -> ArmRun | EcdDeployError:
    try:
        return run_arm(study, arm, seed, out, own_process=False)
    except Interrupted:
        raise
    except EcdDeployError as error:
        return error


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A run whose directory is held.

    Attributes:
        arm: its name.
        seed: its seed.
        data: its images.
        directory: its files.
        model: as it is before the first step; for the test afterwards.
        begun: whether another process began to train it.
    """

    arm: str
    seed: int
    data: DataSplits
    directory: RunDirectory
    model: TrainingModel
    begun: bool

    def finish(self, trained: Trained, *, own_process: bool) -> ArmRun:
        """Test what was trained, and write the record."""
        recipe, result = self.directory.recipe, trained.result
        initial = state_digest(self.model.student)
        last, best = self._test("last"), None if result.best is None else self._test("best")
        # of a training that another process began, this one's peak is only a part
        is_own = not (self.begun or result.stacked_with)
        host, gpu = _peak_memory(own_process=own_process) if is_own else (None, None)
        run = ArmRun(
            arm=self.arm,
            seed=self.seed,
            recipe_digest=recipe.digest(),
            data_digest=self.data.digest,
            initial_student=initial,
            test_images=len(self.data.test),
            last=last,
            best=best,
            best_epoch=None if result.best is None else result.best.epoch,
            own_best=own_bests(result.best, trained.epochs),
            seconds=result.seconds,
            peak_memory_mib=host,
            peak_gpu_memory_mib=gpu,
            threads=result.threads,
            stacked_with=result.stacked_with,
        )
        self.directory.write_json(ARM_NAME, run)
        return run

    def _test(self, which: Select) -> HeadTop1:
        load_weights(self.directory.root, which, self.model)
        return _test(self.model, self.data, self.directory.recipe)


@contextmanager
def _opened(study: Study, arm: str, seed: int, out: Path) -> Iterator[_Run]:
    recipe = recipe_of(study, study.arm(arm), seed, out)
    data = load_training_data(recipe)
    root = run_directory(out, arm, seed)
    model = training_model(recipe, data, open_weights(recipe, data))
    with create_run(root, recipe, resume=True) as directory:
        record_environment(directory)
        begun = bool(CheckpointStore(root / CHECKPOINTS_FOLDER).paths())
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        yield _Run(arm=arm, seed=seed, data=data, directory=directory, model=model, begun=begun)


def _test(model: TrainingModel, data: DataSplits, recipe: Recipe) -> HeadTop1:
    device = next(model.parameters()).device
    correct: Counter[str] = Counter()
    model.eval()
    with torch.no_grad():
        test = ImageTensors.of(data.test)
        for batch in eval_batches(test, data.normalisation, recipe.train.batch_size, device=device):
            outputs: TrainingOutputs = model(batch.images)
            for head, logits in outputs.heads().items():
                correct[head] += int((logits.argmax(dim=1) == batch.labels).sum())
    return HeadTop1(**{head: count / len(data.test) for head, count in correct.items()})


def own_bests(best: EpochScore | None, history: Sequence[EpochRecord]) -> HeadBests | None:
    """Find each head's best epoch; the student's is known as `best`, and None without a validation split."""
    if best is None or best.validation_top1 is None:
        return None
    return HeadBests(
        student=HeadBest(epoch=best.epoch, validation_top1=best.validation_top1),
        teacher=_own_best([(record.epoch, record.teacher_validation_top1) for record in history]),
        ensemble=_own_best([(record.epoch, record.ensemble_validation_top1) for record in history]),
    )


def _own_best(scores: Sequence[tuple[int, float | None]]) -> HeadBest | None:
    known = [HeadBest(epoch=epoch, validation_top1=top1) for epoch, top1 in scores if top1 is not None]
    return max(known, key=lambda score: score.validation_top1, default=None)


def _peak_memory(*, own_process: bool) -> tuple[float | None, float | None]:
    """Peaks in MiB: of the process, and of the GPU, one of which is None: the GPU's if nothing was held there."""
    held = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    if held:
        return None, held / _BYTES_PER_MIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB_PER_MIB if own_process else None, None
