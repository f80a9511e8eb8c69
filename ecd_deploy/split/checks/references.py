"""Check: nothing that the student holds on to leads to what is not deployed."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

from ecd_deploy.split.checks.values import AuxiliaryValues, ValueIndex
from ecd_deploy.split.inventory import NamedTensor, named_tensors
from ecd_deploy.split.object_graph import Search, search
from ecd_deploy.split.results import ReferencesResult, listed
from ecd_deploy.split.storages import StorageIndex

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecd_deploy.distill import TrainingModel


@dataclass(frozen=True)
class Sought:
    """Modules and tensors that a student must not lead to."""

    modules: Mapping[int, str]
    """Descriptions by id of the module."""
    tensors: tuple[NamedTensor, ...]
    values: ValueIndex
    """Values that nothing else that the student leads to may have."""

    def search_from(self, student: nn.Module) -> Search:
        """Walk from a student; a tensor is recognised by its storage, so that a view of one is found too."""
        index = StorageIndex(self.tensors)

        def wanted(value: object) -> str | None:
            if id(value) in self.modules:
                return self.modules[id(value)]
            if isinstance(value, np.ndarray) and value.dtype in (np.float32, np.float64, np.float16):
                with warnings.catch_warnings():  # of an array that is read-only: nothing is written
                    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                    value = torch.from_numpy(np.array(value, copy=False))
            # of an exported program that is met on the way: a shape without numbers
            if not isinstance(value, Tensor) or isinstance(value, FakeTensor):
                return None
            if names := index.sharing(value):
                return f"a tensor in the storage of {names[0]}"
            if (name := self.values.equal(value)) is not None:
                return f"a tensor with the values of {name}"
            return None

        return search(student, "student", wanted)


def auxiliary_sought(model: TrainingModel, foreign: AuxiliaryValues) -> Sought:
    """The joint model itself, its auxiliary modules with their children, and their tensors."""
    modules = {id(model): f"the joint model, {type(model).__name__}"}
    for key, module in model.auxiliary().items():
        modules |= {id(child): f"the auxiliary module {path}" for path, child in module.named_modules(prefix=key)}
    return Sought(modules, foreign.tensors, foreign.index)


def everything_sought(model: TrainingModel, foreign: AuxiliaryValues) -> Sought:
    """All of the joint model, the original student included: what a copy of the student must not lead to."""
    auxiliary = auxiliary_sought(model, foreign)
    student = model.student
    originals = {id(child): f"the original module {path}" for path, child in student.named_modules(prefix="student")}
    tensors = (*auxiliary.tensors, *named_tensors(student, "student"))
    return Sought({**auxiliary.modules, **originals}, tensors, auxiliary.values)


def check_references(model: TrainingModel, foreign: AuxiliaryValues) -> ReferencesResult:
    """Search all that the student holds for the joint model, auxiliary modules and auxiliary tensors."""
    sought = auxiliary_sought(model, foreign)
    result = sought.search_from(model.student)
    return ReferencesResult(
        findings=listed([f"{found.path} is {found.description}" for found in result.found]),
        passed=not result.found,
        objects_visited=result.visited,
        modules_sought=len(sought.modules),
        tensors_sought=len(sought.tensors),
    )
