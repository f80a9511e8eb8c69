"""Check: the module that leaves is the whole student, and cannot find its way back."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ecd_deploy.errors import SplitError, reraise_machine_fault
from ecd_deploy.split.checks.perturbation import bit_difference
from ecd_deploy.split.checks.references import everything_sought
from ecd_deploy.split.inventory import named_tensors, tensor_records
from ecd_deploy.split.joint import student_logits
from ecd_deploy.split.results import CopyResult, listed

if TYPE_CHECKING:
    from ecd_deploy.distill import TrainingModel
    from ecd_deploy.split.checks.values import AuxiliaryValues


def plain_copy(student: nn.Module) -> nn.Module:
    """Copy a student: eval mode, nothing trainable, no gradients.

    Raises:
        SplitError: the student cannot be copied.
    """
    try:
        module = copy.deepcopy(student)
    except Exception as error:
        reraise_machine_fault(error)
        raise SplitError(f"the student, {type(student).__name__}, cannot be copied: {error}") from error
    module.eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.grad = None
    return module


def check_copy(
    model: TrainingModel, module: nn.Module, images: Tensor, foreign: AuxiliaryValues, *, attributes: bool
) -> CopyResult:
    """Compare the module that leaves with the student that was trained; call within `preserved(model)`.

    Args:
        model: the joint model.
        module: a fresh build with the trained values, or a copy of the student.
        images: (N, C, H, W).
        foreign: what is auxiliary.
        attributes: whether plain tensor attributes are compared; a fresh build brings its own.
    """
    originals, records = (
        {record for record in tensor_records(each) if attributes or record.kind != "attribute"}
        for each in (model.student, module)
    )
    findings = sorted(f"{record.name} of the copy differs from the original" for record in records - originals)
    if len(records) != len(originals):
        findings.append(f"the copy has {len(records)} tensors, the original {len(originals)}")
    sought = everything_sought(model, foreign)
    way_back = sought.search_from(module)
    findings += [f"the copy's {found.path} is {found.description}" for found in way_back.found]
    own = {id(entry.tensor) for entry in named_tensors(module) if entry.kind != "attribute"}
    findings += [
        f"its state holds {name}, which is no parameter or buffer of its own"
        for name, value in module.state_dict(keep_vars=True).items()
        if id(value) not in own
    ]
    compared = 0
    try:
        with torch.no_grad():
            reference = student_logits(model.student, images).clone()
            difference = bit_difference(student_logits(module, images), reference)
        compared = reference.numel()
        if difference is not None:
            findings.append(f"the copy's logits differ from the student's: {difference}")
    except SplitError as error:
        findings.append(f"{error} (after it was copied)")
    return CopyResult(
        findings=listed(findings),
        passed=not findings,
        tensors_compared=len(records),
        logits_compared=compared,
        objects_visited=way_back.visited,
        modules_sought=len(sought.modules),
        tensors_sought=len(sought.tensors),
    )
