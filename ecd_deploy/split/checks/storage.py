"""Check: no tensor of the student lives in the memory of an auxiliary tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecd_deploy.split.inventory import auxiliary_tensors, named_tensors
from ecd_deploy.split.results import StorageResult, listed
from ecd_deploy.split.storages import StorageIndex

if TYPE_CHECKING:
    from ecd_deploy.distill import TrainingModel


def check_storage(model: TrainingModel) -> StorageResult:
    """Compare the storages, not the names, of parameters, buffers and plain tensor attributes."""
    own = named_tensors(model.student, "student")
    foreign = auxiliary_tensors(model.auxiliary())
    index = StorageIndex(foreign)
    findings = [f"{entry.name} shares storage with {name}" for entry in own for name in index.sharing(entry.tensor)]
    return StorageResult(
        findings=listed(findings), passed=not findings, student_tensors=len(own), auxiliary_tensors=len(foreign)
    )
