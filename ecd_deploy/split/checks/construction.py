"""Check: the student that leaves is a fresh build of its factory, with the trained values and nothing more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from ecd_deploy.compat.torch import is_normalisation
from ecd_deploy.errors import EcdDeployError, SplitError, reraise_machine_fault
from ecd_deploy.split.inventory import NamedTensor, named_tensors, tensor_bytes
from ecd_deploy.split.results import ConstructionResult, listed
from ecd_deploy.split.storages import StorageIndex

if TYPE_CHECKING:
    from ecd_deploy.distill import TrainingModel

Factory = Callable[[], nn.Module]
"""Builds the student anew, untrained; called while the random state is kept."""

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_NO_FACTORY = "the student was given without the factory that builds it, and leaves as a copy of the trained object"


@dataclass(frozen=True)
class Construction:
    """A fresh build with the trained values, and what was found on the way; no module where there is none."""

    module: nn.Module | None
    result: ConstructionResult


def check_construction(model: TrainingModel, factory: Factory | None, device: torch.device) -> Construction:
    """Build the student anew and fill it with the values of the trained one; call within `preserved(model)`.

    The fresh build is in eval mode, has nothing to train, and is laid out in memory as the trained student is.

    Raises:
        SplitError: the factory fails, or gives no module.
    """
    if factory is None:
        return Construction(None, ConstructionResult(passed=True, findings=(), not_done_reason=_NO_FACTORY))
    fresh = _fresh_build(factory).to(device).eval().requires_grad_(False)
    own, built = _registered(model.student), _registered(fresh)
    index = StorageIndex(named_tensors(model, "the joint model"))
    findings = [
        f"the factory's {name} is not fresh, it shares storage with {index.sharing(entry.tensor)[0]}"
        for name, entry in built.items()
        if index.sharing(entry.tensor)
    ]
    findings += _differences(own, built)
    own_values = () if findings else tuple(sorted(_own_values(model.student, own, built)))
    if not findings:
        try:
            fresh.load_state_dict(model.student.state_dict(), strict=True)
        except (RuntimeError, TypeError) as error:
            findings.append(f"a fresh build does not take the student's state: {error}")
        for name, entry in built.items():
            if entry.tensor.stride() != own[name].tensor.stride():
                entry.tensor.data = torch.empty_like(own[name].tensor).copy_(entry.tensor)
    result = ConstructionResult(
        findings=listed(findings), passed=not findings, tensors_compared=len(built), own_values=own_values
    )
    return Construction(None if findings else fresh, result)


def is_statistic(module: nn.Module, name: str) -> bool:
    """Whether a buffer of a module is a statistic that a batch norm of torch keeps."""
    return is_normalisation(module) and name in _STATISTICS


def _fresh_build(factory: Factory) -> nn.Module:
    try:
        fresh = factory()
    except EcdDeployError:
        raise
    except Exception as error:
        reraise_machine_fault(error)
        raise SplitError(f"the student's factory fails: {type(error).__name__}: {error}") from error
    if not isinstance(fresh, nn.Module):
        raise SplitError(f"the student's factory gives {type(fresh).__name__}, not a torch.nn.Module")
    return fresh


def _registered(module: nn.Module) -> dict[str, NamedTensor]:
    return {entry.name: entry for entry in named_tensors(module) if entry.kind != "attribute"}


def _differences(own: dict[str, NamedTensor], built: dict[str, NamedTensor]) -> list[str]:
    findings = [f"student.{name} is not in a fresh build" for name in own if name not in built]
    findings += [f"a fresh build has {name}, which the student has not" for name in built if name not in own]
    return findings + [
        f"student.{name} is {_described(own[name])}, in a fresh build {_described(entry)}"
        for name, entry in built.items()
        if name in own and _described(own[name]) != _described(entry)
    ]


def _described(entry: NamedTensor) -> str:
    return f"a {entry.kind} of {str(entry.tensor.dtype).removeprefix('torch.')} {tuple(entry.tensor.shape)}"


def _own_values(student: nn.Module, own: dict[str, NamedTensor], built: dict[str, NamedTensor]) -> set[str]:
    modules = dict(student.named_modules())
    return {
        name
        for name, entry in own.items()
        if not entry.tensor.requires_grad
        and not is_statistic(modules[name.rpartition(".")[0]], name.rpartition(".")[2])
        and tensor_bytes(entry.tensor) != tensor_bytes(built[name].tensor)
    }
