"""Check: the student's logits do not change, whatever becomes of everything else."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ecd_deploy.compat.torch import own_buffers, own_children, own_parameters
from ecd_deploy.errors import SplitError
from ecd_deploy.files import sha256_bytes
from ecd_deploy.split.inventory import NamedTensor, auxiliary_tensors, tensor_bytes
from ecd_deploy.split.joint import joint_logits, student_logits
from ecd_deploy.split.results import PerturbationResult, listed
from ecd_deploy.split.storages import poisoned, randomised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ecd_deploy.distill import TrainingModel


def check_perturbation(model: TrainingModel, images: Tensor) -> PerturbationResult:
    """Compare logits bit by bit: joint and alone; as trained, and with all that is auxiliary NaN, random, deleted.

    A feature of the teacher that enters the student detached leaves no trace in the autograd graph; it does here.
    Images are (N, C, H, W). Call within `preserved(model)`.
    """
    targets = [entry for entry in auxiliary_tensors(model.auxiliary()) if entry.tensor.is_floating_point()]
    try:
        with torch.no_grad():
            reference = student_logits(model.student, images).clone()
    except SplitError as error:
        return _result([str(error)], targets, 0, "")
    findings: list[str] = []
    compared = 0
    nan_refused = ""

    def compare(forward: Callable[[], Tensor], condition: str) -> None:
        nonlocal compared
        try:
            difference = bit_difference(forward(), reference)
        except SplitError as error:
            findings.append(f"{error} ({condition})")
            return
        compared += reference.numel()
        if difference is not None:
            findings.append(f"the student's logits change {condition}: {difference}")

    if not torch.isfinite(reference).all():
        findings.append("the student's logits on the example are not finite: no change could be told")
    with torch.no_grad():
        compare(lambda: joint_logits(model, images), "in the joint forward")
        with poisoned([entry.tensor for entry in targets]):
            try:
                logits = joint_logits(model, images)
            except SplitError as error:  # a teacher with an SVD, say: it tells nothing of what the student depends on
                nan_refused = str(error)
            else:
                compare(lambda: logits, "in the joint forward with all auxiliary tensors NaN")
            compare(lambda: student_logits(model.student, images), "alone with all auxiliary tensors NaN")
        with randomised([entry.tensor for entry in targets]):
            compare(lambda: joint_logits(model, images), "in the joint forward with all auxiliary tensors randomised")
        with _deleted(model):
            compare(lambda: student_logits(model.student, images), "alone with all auxiliary modules emptied")
        compare(lambda: student_logits(model.student, images), "alone after the tensors were restored")
    return _result(findings, targets, compared, sha256_bytes(tensor_bytes(reference)), nan_refused)


@contextmanager
def _deleted(model: TrainingModel) -> Iterator[None]:
    """Take parameters, buffers and children away from every auxiliary module for the length of the block."""
    children = {id(child): child for module in model.auxiliary().values() for child in module.modules()}
    tables = [
        t for child in children.values() for t in (own_parameters(child), own_buffers(child), own_children(child))
    ]
    contents: list[dict[str, object]] = [dict(table) for table in tables]
    try:
        for table in tables:
            table.clear()
        yield
    finally:
        for table, content in zip(tables, contents, strict=True):
            table.update(content)  # type: ignore[arg-type]


def bit_difference(logits: Tensor, reference: Tensor) -> str | None:
    """How two sets of logits differ, or None if they agree in every bit."""
    if logits.shape != reference.shape or logits.dtype != reference.dtype:
        return f"{logits.dtype} {tuple(logits.shape)} instead of {reference.dtype} {tuple(reference.shape)}"
    if tensor_bytes(logits) == tensor_bytes(reference):
        return None
    return f"{int((logits != reference).sum())} of {reference.numel()} differ"


def _result(
    findings: list[str], targets: list[NamedTensor], compared: int, logits_sha256: str, nan_refused: str = ""
) -> PerturbationResult:
    return PerturbationResult(
        findings=listed(findings),
        passed=not findings,
        poisoned_tensors=len(targets),
        poisoned_elements=sum(entry.tensor.numel() for entry in targets),
        nan_refused=nan_refused,
        logits_compared=compared,
        logits_sha256=logits_sha256,
    )
