"""Takes the student out of the model that was trained, if it is provably separate."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ecd_deploy.errors import SplitError
from ecd_deploy.split.checks.batch import check_batch
from ecd_deploy.split.checks.construction import Factory, check_construction
from ecd_deploy.split.checks.copying import check_copy, plain_copy
from ecd_deploy.split.checks.dataflow import check_dataflow
from ecd_deploy.split.checks.graph import check_graph
from ecd_deploy.split.checks.hooks import check_hooks
from ecd_deploy.split.checks.perturbation import check_perturbation
from ecd_deploy.split.checks.references import check_references
from ecd_deploy.split.checks.steadiness import find_unsteadiness
from ecd_deploy.split.checks.storage import check_storage
from ecd_deploy.split.checks.train_mode import check_train_mode
from ecd_deploy.split.checks.values import auxiliary_values, check_values
from ecd_deploy.split.inventory import auxiliary_tensors, describe_tensors, tensor_records
from ecd_deploy.split.joint import preserved
from ecd_deploy.split.records import TensorRecord, records_digest
from ecd_deploy.split.results import CheckResult, SplitChecks, SplitProof
from ecd_deploy.split.student import SplitStudent

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from ecd_deploy.distill import TrainingModel


def split_student(
    model: TrainingModel, example: Tensor, *, factory: Factory | None = None, unused: Collection[str] = ()
) -> SplitStudent:
    """Prove that the student stands alone, and return it anew with the proof.

    The joint model is left as it was: mode, values, gradients, running statistics.

    Args:
        model: the joint model, or the student's own wrapper if it was trained alone.
        example: normalised images, (N, C, H, W), preferably real ones.
        factory: builds the student anew, untrained. With it the student that leaves is a fresh build that took over
            the trained values; without it, a copy of the trained object, which is a weaker proof and says so.
        unused: names of the student's tensors, or of modules that hold them, that the logits do not depend on and
            that leave all the same.

    Raises:
        SplitError: the student is not separate; each offending path is in the text.
    """
    images = _checked_images(example, model.student)
    with preserved(model):
        _refuse_unsteady(model.student, images)
        built = check_construction(model, factory, images.device)
        foreign = auxiliary_values(model)
        checked = partial(
            SplitChecks,
            construction=built.result,
            references=check_references(model, foreign),
            hooks=check_hooks(model, built.module),
            storage=check_storage(model),
            values=check_values(model, foreign),
            dataflow=check_dataflow(model, images, unused),
            graph=check_graph(model, images, built.module, unused),
            batch=check_batch(model, images),
            perturbation=check_perturbation(model, images),
            train_mode=check_train_mode(model, images, unused),
        )
        # A student that holds the joint model would take it along into the copy.
        _refuse(checked.keywords)
        module = built.module or plain_copy(model.student)
        copied = check_copy(model, module, images, foreign, attributes=built.module is None)
        _refuse({"copy": copied})
    checks = checked(copied=copied)
    return SplitStudent(module.cpu(), _proof(model, images, checks, tensor_records(module)))


def _checked_images(example: Tensor, student: nn.Module) -> Tensor:
    if example.dim() != 4 or len(example) == 0:
        raise SplitError(f"the example must be images (N, C, H, W), its shape is {tuple(example.shape)}")
    parameter = next(student.parameters(), None)
    return example.detach() if parameter is None else example.detach().to(parameter.device)


def _refuse_unsteady(student: nn.Module, images: Tensor) -> None:
    try:
        problem = find_unsteadiness(student, images)
    except SplitError:
        return  # a forward that fails is a finding of the checks that run it
    if problem is not None:
        raise SplitError(f"nothing can be proved of the student: {problem}")


def _refuse(results: Mapping[str, CheckResult]) -> None:
    lines = [f"  {name}: {finding}" for name, result in results.items() for finding in result.findings]
    if lines:
        raise SplitError("\n".join(("the student is not separate from what was trained beside it:", *lines)))


def _proof(model: TrainingModel, images: Tensor, checks: SplitChecks, records: tuple[TensorRecord, ...]) -> SplitProof:
    _, channels, height, width = images.shape
    return SplitProof(
        joint_model=type(model).__name__,
        auxiliary=tuple(model.auxiliary()),
        example_shape=(channels, height, width),
        example_batch=len(images),
        passed=True,
        checks=checks,
        student_digest=records_digest(records),
        parameters=_elements(record for record in records if record.kind == "parameter"),
        buffers=_elements(record for record in records if record.kind != "parameter"),
        student_tensors=records,
        auxiliary_tensors=describe_tensors(auxiliary_tensors(model.auxiliary())),
    )


def _elements(records: Iterable[TensorRecord]) -> int:
    return sum(torch.Size(record.shape).numel() for record in records)
