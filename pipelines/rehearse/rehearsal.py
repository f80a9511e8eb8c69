"""The rehearsal: the untrained student goes the whole way on a few images, before anything is written."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from ecd_deploy.data import DataSplits
from ecd_deploy.data.augmentation import find_augmenter
from ecd_deploy.distill import TrainingModel, build_objective
from ecd_deploy.errors import SplitError, StudentError
from ecd_deploy.pipelines.rehearse.applies import check_applies
from ecd_deploy.pipelines.rehearse.export import rehearse_formats
from ecd_deploy.pipelines.rehearse.forward import check_forward
from ecd_deploy.pipelines.rehearse.gradients import check_gradients
from ecd_deploy.pipelines.rehearse.result import Part, Rehearsal
from ecd_deploy.pipelines.rehearse.student import check_parts
from ecd_deploy.pipelines.steps.start import open_weights
from ecd_deploy.pipelines.steps.train import example_images, student_factory, training_model
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.split import SplitStudent, split_student


def rehearse(recipe: Recipe, data: DataSplits, *, noise: bool = False) -> Rehearsal:
    """Take the untrained student through forward, loss, gradients, split proof and each format of the recipe.

    Nothing is written, and random state is the caller's afterwards: the training that follows is the same as without.

    Args:
        recipe: of the run.
        data: its images, of which eight training images are used.
        noise: whether these only stand in for its images, so that their number says nothing.

    Raises:
        UsageError: what would fail later, in one line that names it and says what to do.
    """
    clock = _Clock()
    images = example_images(data)
    with _collector_paused(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        with clock.part("recipe"):
            warnings = check_applies(recipe, None if noise else len(data.test))
        with clock.part("augmentation"):
            if (augmenter := find_augmenter(recipe, data)) is not None:
                few = data.train.first(len(images))
                augmenter.change(torch.from_numpy(few.images), np.arange(len(few)), epoch=1)
        with clock.part("student"):
            student = student_factory(recipe, data)()
            check_parts(student)
        with clock.part("forward"):
            check_forward(student, images, len(data.classes))
        with clock.part("loss and gradients"):
            model = training_model(recipe, data, open_weights(recipe, data))
            objective = build_objective(recipe.method, label_smoothing=recipe.train.label_smoothing)
            warnings += check_gradients(model, objective, images, data, recipe.student.unused)
        with clock.part("split proof"):
            split = _split(recipe, data, model, images)
        clock.parts.extend(rehearse_formats(recipe, split, data, images))
    return Rehearsal(
        student=recipe.student.name, images=len(images), noise=noise, parts=tuple(clock.parts), warnings=warnings
    )


def _split(recipe: Recipe, data: DataSplits, model: TrainingModel, images: Tensor) -> SplitStudent:
    try:
        return split_student(model, images, factory=student_factory(recipe, data), unused=recipe.student.unused)
    except SplitError as error:
        head, *findings = (line.strip() for line in str(error).splitlines())
        more = f" and {len(findings) - 1} more" if len(findings) > 1 else ""
        raise StudentError(
            f"the untrained student does not pass the split: {findings[0] if findings else head}{more}"
        ) from error


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Leave cyclic garbage for later: looking for it among what `torch.export` makes takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Clock:
    """Notes how long each part takes."""

    def __init__(self) -> None:
        self.parts: list[Part] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.parts.append(Part(name=name, seconds=time.perf_counter() - begun))
