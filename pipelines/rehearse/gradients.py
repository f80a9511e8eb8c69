"""The objective's loss and gradients, and which parameters of the student take part."""

from __future__ import annotations

import copy
import json

import torch
from torch import Tensor, nn

from ecd_deploy.data import DataSplits
from ecd_deploy.distill import Objective, TrainingModel
from ecd_deploy.distill.student.locate import described, watched
from ecd_deploy.errors import StudentError, first_line
from ecd_deploy.split.checks.unused import is_listed

_STEPS = 4
_SHOWN = 3


def check_gradients(
    model: TrainingModel, objective: Objective, images: Tensor, data: DataSplits, unused: tuple[str, ...]
) -> tuple[str, ...]:
    """Compute loss and gradients as a training step does, a few times, each with other random numbers.

    Args:
        model: what is trained; its gradients and statistics are changed.
        objective: of the recipe's method.
        images: normalised, (N, C, H, W), the first of the training images.
        data: of the run, for the labels.
        unused: patterns of the names of parameters that may ship without having an effect.

    Returns:
        Warnings, a line each.

    Raises:
        StudentError: there is no finite loss, or a trainable parameter has no effect on the logits.
    """
    labels = torch.from_numpy(data.train_labels[: len(images)])
    model.train()
    reached: set[str] = set()
    for _ in range(_STEPS):
        model.zero_grad(set_to_none=True)
        try:
            arguments = (images, torch.arange(len(images))) if objective.pretrained else (images,)
            loss = objective(model(*arguments), labels).total
            loss.backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise StudentError(f"a step of the training fails: {first_line(error)}") from error
        if not torch.isfinite(loss):
            raise StudentError(f"the first loss is {loss.item()}: see how the student's weights are initialised")
        reached |= {name for name, parameter in model.student.named_parameters() if parameter.grad is not None}
    model.zero_grad(set_to_none=True)
    return _unused(model, images, reached, unused)


def _unused(model: TrainingModel, images: Tensor, reached: set[str], listed: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what has no effect on the logits and is not listed; say what is listed, and what is trained only at times.

    An effect is one in evaluation mode, where nothing is left out at random.
    """
    student = model.student.eval()
    trainable = {name: parameter for name, parameter in student.named_parameters() if parameter.requires_grad}
    gradients = torch.autograd.grad(student(images).sum(), tuple(trainable.values()), allow_unused=True)
    without = [name for name, gradient in zip(trainable, gradients, strict=True) if gradient is None]
    strangers = [name for name in without if not is_listed(name, listed)]
    if strangers:
        if (lost := _where_lost(student, images, strangers)) is not None:
            raise StudentError(
                f"the student's logits depend on {_names(strangers)} without a gradient: it is lost in {lost}, "
                "which detaches, leaves torch or runs under no_grad; they could not be trained"
            )
        raise StudentError(
            f"the student's logits do not depend on {_names(strangers)}: remove what is unused, or let it ship as it "
            f"is, with student.unused = {json.dumps(_holders(strangers))}"
        )
    warnings = []
    if without:
        warnings.append(f"{_names(without)}: unused, listed in student.unused, and shipped")
    if late := [name for name in trainable if name not in reached and name not in without]:
        warnings.append(f"{_names(late)}: no gradient in {_STEPS} steps; what is left out at random is trained later")
    return tuple(warnings)


def _where_lost(student: nn.Module, images: Tensor, names: list[str]) -> str | None:
    """The module that loses the gradient of these parameters, in words; None if they have no effect at all."""
    changed = copy.deepcopy(student)
    with torch.no_grad():
        for name in names:
            changed.get_parameter(name).add_(1.0)
        if torch.equal(student(images), changed(images)):
            return None
    with watched(student) as seen:
        student(images)
    lost = (name for name, output in seen.calls if output.is_floating_point() and not output.requires_grad)
    return described(student, next(lost, None))


def _holders(names: list[str]) -> list[str]:
    """The modules that hold these parameters, or the parameter where that is the student itself."""
    return list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
