"""What a student gives for images: logits, of their images alone, with gradients."""

from __future__ import annotations

import copy
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor, nn

from ecd_deploy.compat.torch import lowered_precision, mutable_attributes
from ecd_deploy.distill.student.locate import Watched, described, watched
from ecd_deploy.errors import StudentError, first_line, reraise_machine_fault
from ecd_deploy.split.checks.batch import batch_spread, dependence
from ecd_deploy.split.checks.dataflow import leaves
from ecd_deploy.split.checks.steadiness import find_unsteadiness
from ecd_deploy.split.inventory import named_tensors


def check_forward(student: nn.Module, images: Tensor, classes: int) -> None:
    """Run a copy of the student in both modes, and compare images alone and in batches.

    Args:
        student: not touched.
        images: normalised, (N, C, H, W).
        classes: of the data.

    Raises:
        StudentError: naming the module and the way out.
    """
    _check_state(copy.deepcopy(student).eval(), images, classes)
    copied = copy.deepcopy(student)
    copied.train()
    with watched(copied) as seen:
        logits = _logits(copied, images, classes, "in training mode")
    _check_gradient(copied, logits, seen)
    _check_registered(copied, logits, seen)
    _fill_zeros(copied)
    copied.eval()
    if unsteady := find_unsteadiness(copied, images):
        raise StudentError(unsteady)
    _check_precision(copied, images)
    with torch.no_grad():
        spread = batch_spread(lambda chosen: _of_batch(copied, chosen, classes), images)
    if problem := dependence(copied, images, spread):
        raise StudentError(problem)


def _logits(student: nn.Module, images: Tensor, classes: int, condition: str) -> Tensor:
    try:
        output = student(images)
    except Exception as error:  # what a user's forward raises, of any kind
        reraise_machine_fault(error)
        raise StudentError(
            f"the student cannot be run {condition} on images {tuple(images.shape)}: {first_line(error)}; its layers "
            "must fit the images of the recipe (data.image_size)"
        ) from error
    if not isinstance(output, Tensor):
        raise StudentError(
            f"{condition} the student returns {_shown(output)}; let it, or a module around it, return the logits alone"
        )
    if output.dim() != 2 and output.shape[:2] == (len(images), classes):
        raise StudentError(
            f"{condition} the student gives {tuple(output.shape)} instead of logits ({len(images)}, {classes}): let it "
            "end with flatten(1)"
        )
    if output.dim() != 2 or len(output) != len(images):
        raise StudentError(
            f"{condition} the student turns {len(images)} images {tuple(images.shape[1:])} into "
            f"{tuple(output.shape)} instead of logits ({len(images)}, {classes}): it loses the batch size, as "
            "view(-1, k) does where k is made for another image size; use flatten(1)"
        )
    if output.shape[1] != classes:
        raise StudentError(
            f"{condition} the student gives {output.shape[1]} logits, and the data have {classes} classes: let its "
            "factory use num_classes"
        )
    if output.dtype != torch.float32:
        dtype = str(output.dtype).removeprefix("torch.")
        raise StudentError(f"{condition} the student gives logits of {dtype}; let it return float32")
    if not torch.isfinite(output).all():
        raise StudentError(f"{condition} the student gives logits that are not finite: see how its weights are made")
    return output


def _of_batch(student: nn.Module, images: Tensor, classes: int) -> Tensor:
    """Logits of some of the images, which the student gave for all of them."""
    words = "an image alone" if len(images) == 1 else f"{len(images)} images"
    try:
        output = student(images)
    except Exception as error:  # what a user's forward raises, of any kind
        reraise_machine_fault(error)
        raise StudentError(
            f"the student cannot be run on {words}: {first_line(error)}; let its forward take a batch of any size"
        ) from error
    if not isinstance(output, Tensor) or output.shape != (len(images), classes):
        shape = tuple(output.shape) if isinstance(output, Tensor) else _shown(output)
        raise StudentError(
            f"the student gives {shape} for {words} instead of logits ({len(images)}, {classes}): let its forward keep "
            "the batch, with flatten(1) instead of view, squeeze and the like"
        )
    return output


def _shown(output: object) -> str:
    if isinstance(output, dict):
        return f"a {type(output).__name__} with {', '.join(map(repr, output))}"
    if is_dataclass(output):
        return f"a {type(output).__name__} with {', '.join(repr(entry.name) for entry in fields(output))}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"


def _check_gradient(student: nn.Module, logits: Tensor, seen: Watched) -> None:
    if logits.requires_grad and not logits.is_inference():
        return
    lost = {name for name, tensor in seen.calls if tensor.is_floating_point() and not tensor.requires_grad}
    trained = (
        name
        for name, tensor in seen.calls
        if name in lost and any(parameter.requires_grad for parameter in student.get_submodule(name).parameters())
    )
    # where no module that gives a tensor lost it, the student's own forward did
    name = next(trained, None)
    while name is not None and _all_lost(student, name.rpartition(".")[0], seen, lost):
        name = name.rpartition(".")[0] or None
    raise StudentError(
        f"the student's logits have no gradient, lost in {described(student, name)}: its forward runs under no_grad or "
        "inference_mode, or detaches; it could not be trained"
    )


def _check_registered(student: nn.Module, logits: Tensor, seen: Watched) -> None:
    own = {id(parameter) for parameter in student.parameters()}
    strangers = [leaf for leaf in leaves(logits) if id(leaf) not in own]
    if strangers:
        name = next((name for name, tensor in seen.calls if any(id(leaf) not in own for leaf in leaves(tensor))), None)
        raise StudentError(
            f"{described(student, name)} computes with a tensor {tuple(strangers[0].shape)} that is no registered "
            "parameter, so it would not be trained, saved or exported: hold layers as attributes or in nn.ModuleList, "
            "not in a plain list, dict or closure"
        )


def _all_lost(student: nn.Module, parent: str, seen: Watched, lost: set[str]) -> bool:
    """Whether nothing below the parent kept a gradient, so that the parent is where it was lost."""
    inside = [name for name, _ in seen.calls if not parent or f"{name}.".startswith(f"{parent}.")]
    trained = [name for name in inside if any(p.requires_grad for p in student.get_submodule(name).parameters())]
    return all(name in lost for name in trained)


def _fill_zeros(student: nn.Module) -> None:
    """Give parameters that start as zeros, as the last of a residual branch often do, values: zeros hide the rest."""
    with torch.no_grad():
        for parameter in student.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)


def _check_state(student: nn.Module, images: Tensor, classes: int) -> None:
    """Look at what the first call leaves behind: a cache that it fills is not seen in the second."""
    registered = _registered(student)
    before = mutable_attributes(student)
    with torch.no_grad():
        _logits(student, images, classes, "in evaluation mode")
    after = mutable_attributes(student)
    added = next((name for name in _registered(student) if name not in registered), None)
    changed = added or next((key for key in (*after, *before) if before.get(key) != after.get(key)), None)
    if changed is not None:
        owner, _, attribute = changed.rpartition(".")
        raise StudentError(
            f"the student keeps a state or cache of its own: a call in evaluation mode changes '{attribute}' of "
            f"{described(student, owner or None)}; let forward assign nothing there"
        )


def _registered(student: nn.Module) -> list[str]:
    return [entry.name for entry in named_tensors(student) if entry.kind != "attribute"]


def _check_precision(student: nn.Module, images: Tensor) -> None:
    found = lowered_precision(student, images)
    if found is not None:
        raise StudentError(
            f"{described(student, found.module)} computes {found.operator} in {found.dtype} by itself: the artefacts "
            "could not be compared with it; leave the precision to train.mixed_precision and to the formats"
        )
