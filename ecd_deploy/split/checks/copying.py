"""Check: the module that leaves is a whole copy of the student, and cannot find its way back."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ecd_deploy.errors import SplitError, reraise_machine_fault
from ecd_deploy.split.checks.perturbation import bit_difference
from ecd_deploy.split.checks.references import everything_sought
from ecd_deploy.split.inventory import tensor_records
from ecd_deploy.split.joint import student_logits
from ecd_deploy.split.records import TensorRecord
from ecd_deploy.split.results import CopyResult, listed

if TYPE_CHECKING:
    from ecd_deploy.distill import TrainingModel


@dataclass(frozen=True)
class CopiedStudent:
    """The copy and what was found on it."""

    module: nn.Module
    records: tuple[TensorRecord, ...]
    result: CopyResult


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


def check_copy(model: TrainingModel, images: Tensor) -> CopiedStudent:
    """Copy the student and compare the copy with the original; call within `preserved(model)`.

    Raises:
        SplitError: the student cannot be copied.
    """
    originals = set(tensor_records(model.student))
    module = plain_copy(model.student)
    records = tensor_records(module)
    findings = [f"{record.name} of the copy differs from the original" for record in records if record not in originals]
    if len(records) != len(originals):
        findings.append(f"the copy has {len(records)} tensors, the original {len(originals)}")
    sought = everything_sought(model)
    way_back = sought.search_from(module)
    findings += [f"the copy's {found.path} is {found.description}" for found in way_back.found]
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
    result = CopyResult(
        findings=listed(findings),
        passed=not findings,
        tensors_compared=len(records),
        logits_compared=compared,
        objects_visited=way_back.visited,
        modules_sought=len(sought.modules),
        tensors_sought=len(sought.tensors),
    )
    return CopiedStudent(module, records, result)
