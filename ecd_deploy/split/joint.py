"""Runs the joint model and its student, and leaves both as they were."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ecd_deploy.compat.torch import own_parameters
from ecd_deploy.distill.outputs import TrainingOutputs
from ecd_deploy.errors import SplitError, reraise_machine_fault
from ecd_deploy.split.inventory import named_tensors
from ecd_deploy.split.storages import saved_storages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ecd_deploy.distill import TrainingModel


_JOINT, _ALONE = "the joint forward", "the student alone"


def joint_logits(model: TrainingModel, images: Tensor) -> Tensor:
    """Run the joint model and return the student's logits, (N, classes).

    Raises:
        SplitError: the forward fails or returns something else.
    """
    outputs = _output(model, images, _JOINT)
    if not isinstance(outputs, TrainingOutputs):
        raise SplitError(f"{_JOINT} returns {type(outputs).__name__}, expected TrainingOutputs")
    return _checked_logits(outputs.student, images, _JOINT)


def student_logits(student: nn.Module, images: Tensor) -> Tensor:
    """Run the student alone, (N, C, H, W) to (N, classes).

    Raises:
        SplitError: the forward fails or returns something else.
    """
    return _checked_logits(_output(student, images, _ALONE), images, _ALONE)


@contextmanager
def preserved(model: TrainingModel) -> Iterator[None]:
    """Hold the model in eval mode; afterwards modes, flags, values and random state are what they were."""
    modules = tuple(model.modules())
    parameters = tuple(
        parameter for module in modules for parameter in own_parameters(module).values() if parameter is not None
    )
    modes = tuple(module.training for module in modules)
    flags = tuple(parameter.requires_grad for parameter in parameters)
    tensors = [entry.tensor for entry in named_tensors(modules[0])]
    # Not .eval(): a student that holds the joint model makes the tree of modules a circle, and eval() would not end.
    for module in modules:
        module.training = False
    try:
        with saved_storages(tensors), torch.random.fork_rng(devices=[]), torch.inference_mode(False):
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        for parameter, flag in zip(parameters, flags, strict=True):
            parameter.requires_grad_(flag)


def _output(module: nn.Module, images: Tensor, origin: str) -> object:
    try:
        return module(images)
    except Exception as error:
        reraise_machine_fault(error)
        raise SplitError(f"{origin} fails on images {tuple(images.shape)}: {error}") from error


def _checked_logits(output: object, images: Tensor, origin: str) -> Tensor:
    if not isinstance(output, Tensor):
        raise SplitError(f"{origin} gives {type(output).__name__} where the student's logits belong")
    if output.dim() != 2 or len(output) != len(images):
        raise SplitError(f"{origin} gives logits {tuple(output.shape)}, expected ({len(images)}, classes)")
    return output
