"""One run of a study: train an arm with a seed, and measure every head on the test images."""

from __future__ import annotations

import resource
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from ecd_deploy.config import Recipe
from ecd_deploy.data import DataSplits, load_data
from ecd_deploy.data.batches import eval_batches
from ecd_deploy.distill import TrainingModel
from ecd_deploy.pipelines.environment import ENVIRONMENT_NAME, describe_environment
from ecd_deploy.pipelines.run_directory import create_run
from ecd_deploy.pipelines.study import Study, recipe_of, run_directory
from ecd_deploy.pipelines.train import train, training_model
from ecd_deploy.split import state_digest
from ecd_deploy.training import load_weights

RUN_NAME = "arm.json"
_KIB_PER_MIB = 1024


class HeadTop1(BaseModel):
    """Top-1 on the test images, as fractions; None where there is no such head."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    student: float
    teacher: float | None = None
    ensemble: float | None = None


class ArmRun(BaseModel):
    """Written to `arm.json`.

    Attributes:
        arm: its name.
        seed: of data cut, order and initial values.
        recipe_digest: of the run's recipe.
        data_digest: of the images.
        initial_student: digest of the student before the first step.
        test_images: measured on.
        last: of the last epoch's weights.
        best: of the best epoch's weights, chosen on the validation split.
        best_epoch: that epoch.
        seconds: wall time of all epochs.
        peak_memory_mib: largest resident memory of the process; None if it did other work too.
        threads: of torch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    arm: str
    seed: int
    recipe_digest: str
    data_digest: str
    initial_student: str
    test_images: int
    last: HeadTop1
    best: HeadTop1
    best_epoch: int
    seconds: float
    peak_memory_mib: float | None
    threads: int


def run_arm(study: Study, arm: str, seed: int, out: Path, *, own_process: bool) -> ArmRun:
    """Train and test one arm with one seed, or go on where it was interrupted.

    Raises:
        EcdDeployError: what training can raise; checkpoints stay.
    """
    recipe = recipe_of(study, study.arm(arm), seed, out)
    data = load_data(recipe.data, seed=seed)
    root = run_directory(out, arm, seed)
    model = training_model(recipe, data)
    initial = state_digest(model.student)
    with create_run(root, recipe, resume=True) as directory:
        directory.write_json(ENVIRONMENT_NAME, describe_environment())
        result = train(directory, data, resume=True, console=None)
        load_weights(root, "last", model)
        last = _test(model, data, recipe)
        load_weights(root, "best", model)
        run = ArmRun(
            arm=arm,
            seed=seed,
            recipe_digest=recipe.digest(),
            data_digest=data.digest,
            initial_student=initial,
            test_images=len(data.test),
            last=last,
            best=_test(model, data, recipe),
            best_epoch=result.best.epoch,
            seconds=result.seconds,
            peak_memory_mib=_peak_memory() if own_process else None,
            threads=result.threads,
        )
        directory.write_json(RUN_NAME, run)
    return run


def _test(model: TrainingModel, data: DataSplits, recipe: Recipe) -> HeadTop1:
    device = next(model.parameters()).device
    correct: list[int] = []
    model.eval()
    with torch.no_grad():
        for batch in eval_batches(data.test, data.normalisation, recipe.train.batch_size, device=device):
            hits = [int((logits.argmax(dim=1) == batch.labels).sum()) for logits in model(batch.images)]
            correct = [before + new for before, new in zip(correct or [0] * len(hits), hits, strict=True)]
    student, *others = (count / len(data.test) for count in correct)
    teacher, ensemble, *_ = (*others, None, None)
    return HeadTop1(student=student, teacher=teacher, ensemble=ensemble)


def _peak_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB_PER_MIB
