# mypy: untyped-calls-exclude=accelerate

"""The memory layout of the student's features while it is trained."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate.accelerator import Accelerator
from torch import nn

from ecd_deploy.data import DataSplits
from ecd_deploy.distill import TrainingModel
from ecd_deploy.errors import reraise_machine_fault
from ecd_deploy.recipe.recipe import Recipe

_logger = logging.getLogger(__name__)


@contextmanager
def laid_out(model: TrainingModel, recipe: Recipe, data: DataSplits, accelerator: Accelerator) -> Iterator[None]:
    """Let the student compute in the layout that the recipe wants on this device while the context lasts."""
    before = model.layout
    if recipe.train.channels_last == "always" or (
        recipe.train.channels_last == "cpu" and accelerator.device.type == "cpu"
    ):
        height, width = data.train.images.shape[2:]
        if runs_in_channels_last(model.student, (data.in_channels, height, width)):
            model.layout = torch.channels_last
    try:
        yield
    finally:
        model.layout = before


def runs_in_channels_last(student: nn.Module, shape: tuple[int, int, int]) -> bool:
    """Whether a copy of the student accepts channels_last images; `view` of a feature does not, for example.

    Args:
        student: any network of images (N, C, H, W) -> logits; it is not touched.
        shape: (C, H, W).
    """
    try:
        like = next(student.parameters())
        images = torch.zeros(2, *shape, dtype=like.dtype).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            copy.deepcopy(student).cpu().eval()(images)
    except Exception as error:  # noqa: BLE001 (any fault of the user's code means that the default layout is kept)
        reraise_machine_fault(error)
        _logger.info("the student keeps the default memory layout: %s: %s", type(error).__name__, error)
        return False
    return True
