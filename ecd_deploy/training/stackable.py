# mypy: untyped-calls-exclude=accelerate

"""Which trainings can share their steps: what they must have in common, and a trial that the results are the same."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor, nn

from ecd_deploy.data import Batch, DataSplits
from ecd_deploy.distill import TrainingModel
from ecd_deploy.errors import first_line, reraise_machine_fault
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.training.begin import Begun
from ecd_deploy.training.methods import training_objective
from ecd_deploy.training.steps.stacked import StackedModel, stacked_batch

_TRIED_IMAGES = 4
_TOLERANCE = 1e-9  # in float64, of the largest value: rounding alone makes 1e-15

_OWN = (
    "name",
    "seed",
    "method.pretrained.run",
    "method.logits_factor",
    "method.logits_temperature",
    "method.features_factor",
)
"""Keys in which the recipes of one stack may differ."""


class NotStackedError(Exception):
    """Why trainings cannot share their steps; none has begun."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One of the trainings; its model is trained in place.

    Attributes:
        name: of the run.
        model: what is trained.
        data: images of the run.
        recipe: like the others', but for `seed`, `name` and factors of the objective.
        directory: gets what `train` leaves in it.
    """

    name: str
    model: TrainingModel
    data: DataSplits
    recipe: Recipe
    directory: Path


def likeness(recipe: Recipe) -> tuple[tuple[str, str], ...]:
    """What the recipes of trainings in one stack have in common: all but seed, names, and what only losses need."""
    choices = recipe.choices()
    has_ensemble = choices["method.logits"] == "ensemble"  # a head of its own
    common = {**choices, **dict.fromkeys(_OWN, None), "method.logits": has_ensemble}
    return tuple(sorted((key, repr(value)) for key, value in common.items()))


def find_obstacle(recipe: Recipe, accelerator: Accelerator) -> str | None:
    """What of a recipe or a launch cannot be done for several trainings in one step."""
    train, method = recipe.train, recipe.method
    if accelerator.num_processes > 1:
        return "there are several processes"
    if train.mixed_precision == "fp16":
        return "train.mixed_precision 'fp16' scales the loss of each run by itself"
    if train.gradient_accumulation > 1:
        return "train.gradient_accumulation cuts the batches"
    if method.name in ("ecd", "joint") and method.teacher == "daconv" and method.backend != "grouped":
        return f"method.backend '{method.backend}' computes one network; 'grouped' computes several"
    if others := [tracker for tracker in train.trackers if tracker != "tensorboard"]:
        return f"'{others[0]}' of train.trackers follows one run in a process"
    return None


def find_difference(begun: Sequence[Begun]) -> str | None:
    """What keeps these trainings apart from each other."""
    if len({likeness(each.recipe) for each in begun}) > 1:
        return "their recipes differ in more than seed and losses"
    if len({_architecture(each.model) for each in begun}) > 1:
        return "their networks differ"
    if len({(len(each.batches), len(each.data.train_labels)) for each in begun}) > 1:
        return "they train on different numbers of images"
    steps = [0 if each.start is None else each.start.state.step for each in begun]
    if len(set(steps)) > 1:
        return f"they go on after different steps: {', '.join(map(str, steps))}"
    return None


def _architecture(model: nn.Module) -> tuple[object, ...]:
    return (
        *((name, type(module)) for name, module in model.named_modules()),
        *((name, tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()),
        *(parameter.requires_grad for parameter in model.parameters()),
    )


def try_stack(members: Sequence[Member], device: torch.device) -> str | None:
    """Do a stacked forward and backward of copies in float64 and compare it with each model's own; None if equal."""
    own = [copy.deepcopy(member.model).train().double() for member in members]
    for model in own:
        model.layout = torch.contiguous_format
    objectives = [training_objective(member.recipe, member.data, device) for member in members]
    batches = [_tried_batch(member.data, device) for member in members]
    whole = stacked_batch(batches)
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            stacked = StackedModel(copy.deepcopy(own))
            outputs = stacked(whole.images, whole.indices if objectives[0].pretrained else None)
            totals = [
                objective(given, batch.labels).total
                for objective, given, batch in zip(objectives, outputs, batches, strict=True)
            ]
            torch.autograd.backward(torch.stack(totals).sum())
            for objective, model, batch in zip(objectives, own, batches, strict=True):
                arguments = (batch.images, batch.indices) if objective.pretrained else (batch.images,)
                torch.autograd.backward(objective(model(*arguments), batch.labels).total)
    except Exception as error:  # noqa: BLE001 (any fault of the user's code means that the runs are not stacked)
        reraise_machine_fault(error)
        if "random operation" in str(error):
            return "the network draws random numbers in training, such as dropout's, which each run draws for itself"
        return f"the network cannot be stacked: {first_line(error)}"
    if lack := _find_cast(members, whole, device):
        return lack
    for number, model in enumerate(own):
        for name, found, expected in _compared(stacked.joint, model, number):
            if not torch.allclose(found, expected, rtol=0, atol=_TOLERANCE * (1 + float(expected.abs().max()))):
                return f"stacked, {name} of the network is not what it is by itself"
    return None


def _find_cast(members: Sequence[Member], whole: Batch, device: torch.device) -> str | None:
    """Do a stacked forward in the precision of the recipes, and say what keeps it from that."""
    if (precision := members[0].recipe.train.mixed_precision) == "no":
        return None
    stacked = StackedModel([copy.deepcopy(member.model) for member in members])
    needs_indices = members[0].recipe.method.pretrained is not None
    try:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            stacked(whole.images.float(), whole.indices if needs_indices else None)
    except Exception as error:  # noqa: BLE001 (any fault of the user's code means that the runs are not stacked)
        reraise_machine_fault(error)
        return f"train.mixed_precision '{precision}' cannot be cast to within a stack: {first_line(error)}"
    return None


def _tried_batch(data: DataSplits, device: torch.device) -> Batch:
    images = data.train.first(_TRIED_IMAGES)
    pixels = torch.from_numpy(data.normalisation.apply(images.images)).double().to(device)
    return Batch(
        pixels, torch.from_numpy(images.labels).to(device), torch.arange(len(images), device=device), len(images)
    )


def _compared(stacked: nn.Module, own: nn.Module, number: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each gradient and each buffer of numbers, in the stack and by itself."""
    for (name, whole), parameter in zip(stacked.named_parameters(), own.parameters(), strict=True):
        if whole.grad is not None and parameter.grad is not None:
            yield f"the gradient of {name}", whole.grad[number], parameter.grad
        elif whole.grad is not None or parameter.grad is not None:
            yield f"the gradient of {name}", torch.ones(()), torch.zeros(())
    for (name, buffer), alone in zip(stacked.named_buffers(), own.buffers(), strict=True):
        if buffer.is_floating_point():
            yield name, buffer[number], alone
