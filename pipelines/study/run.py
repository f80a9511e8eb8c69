"""One run of a study: train an arm with a seed, and measure every head on the test images."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from ecd_deploy.data import DataSplits, ImageTensors, eval_batches
from ecd_deploy.distill import TrainingModel, TrainingOutputs
from ecd_deploy.pipelines.record.environment import record_environment
from ecd_deploy.pipelines.record.names import ARM_NAME, CHECKPOINTS_FOLDER
from ecd_deploy.pipelines.record.run_directory import create_run
from ecd_deploy.pipelines.steps.start import load_training_data, open_weights
from ecd_deploy.pipelines.steps.train import train, training_model
from ecd_deploy.pipelines.study.study import Study, recipe_of, run_directory
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.records import Record
from ecd_deploy.split import state_digest
from ecd_deploy.training import EpochRecord, EpochScore, HeadTop1, load_weights
from ecd_deploy.training.checkpoints.store import CheckpointStore

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
        peak_gpu_memory_mib: most that torch's tensors held of the GPU; None without one, or after a resumption.
        threads: of torch.
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


def run_arm(study: Study, arm: str, seed: int, out: Path, *, own_process: bool) -> ArmRun:
    """Train and test one arm with one seed, or resume where it was interrupted.

    Raises:
        EcdDeployError: what training can raise; checkpoints stay.
    """
    recipe = recipe_of(study, study.arm(arm), seed, out)
    data = load_training_data(recipe)
    root = run_directory(out, arm, seed)
    model = training_model(recipe, data, open_weights(recipe, data))
    initial = state_digest(model.student)
    with create_run(root, recipe, resume=True) as directory:
        record_environment(directory)
        begun = bool(CheckpointStore(root / CHECKPOINTS_FOLDER).paths())
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        trained = train(directory, data, resume=True)
        result = trained.result
        load_weights(root, "last", model)
        last = _test(model, data, recipe)
        best = None
        if result.best is not None:
            load_weights(root, "best", model)
            best = _test(model, data, recipe)
        # of a training that another process began, this one's peak is only a part
        host, gpu = (None, None) if begun else _peak_memory(own_process=own_process)
        run = ArmRun(
            arm=arm,
            seed=seed,
            recipe_digest=recipe.digest(),
            data_digest=data.digest,
            initial_student=initial,
            test_images=len(data.test),
            last=last,
            best=best,
            best_epoch=None if result.best is None else result.best.epoch,
            own_best=own_bests(result.best, trained.epochs),
            seconds=result.seconds,
            peak_memory_mib=host,
            peak_gpu_memory_mib=gpu,
            threads=result.threads,
        )
        directory.write_json(ARM_NAME, run)
    return run


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
