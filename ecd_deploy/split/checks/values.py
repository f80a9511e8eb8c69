"""Check: no tensor of the student repeats, by value, an auxiliary one or numbers in a row of one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecd_deploy.split.inventory import NamedTensor, auxiliary_tensors, named_tensors, tensor_bytes
from ecd_deploy.split.results import ValuesResult, listed
from ecd_deploy.split.runs import common_runs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ecd_deploy.distill import TrainingModel

Fingerprint = tuple[str, int, int]
"""Data type, number of elements, and a 64-bit hash of the elements whatever their order."""

LEAST_ELEMENTS = 8
_MOST_SLICES = 64
_STATISTIC = re.compile(r"mean|var|std|running|moving|avg|average|ema|stat|momentum", re.IGNORECASE)
_INTEGERS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def fingerprint(tensor: Tensor) -> Fingerprint | None:
    """Hash the elements so that a transposed, permuted or reshaped copy is recognised as well.

    None where the elements are too few, or are all alike: zeros, ones and small tables are nobody's.
    """
    if tensor.numel() < LEAST_ELEMENTS or tensor.is_complex():
        return None
    data = tensor_bytes(tensor)
    words = np.frombuffer(data, dtype=_INTEGERS[tensor.element_size()]).astype(np.uint64)
    if bool((words == words[0]).all()):
        return None
    return str(tensor.dtype).removeprefix("torch."), tensor.numel(), int(_mixed(words).sum(dtype=np.uint64))


class ValueIndex:
    """Finds tensors by value among named tensors and their slices along the first dimension."""

    def __init__(self, tensors: tuple[NamedTensor, ...]) -> None:
        self._names: dict[Fingerprint, str] = {}
        for entry in tensors:
            for name, part in _with_slices(entry):
                found = fingerprint(part)
                if found is not None:
                    self._names.setdefault(found, name)

    def __len__(self) -> int:
        return len(self._names)

    def equal(self, tensor: Tensor) -> str | None:
        """Name of what has the values of `tensor`, in any order."""
        found = fingerprint(tensor)
        return None if found is None else self._names.get(found)

    def without(self, tensors: tuple[Tensor, ...]) -> ValueIndex:
        """The same index, but for the values of these."""
        known = {fingerprint(tensor) for tensor in tensors}
        rest = ValueIndex(())
        rest._names = {key: name for key, name in self._names.items() if key not in known}
        return rest


def common_tensors(model: TrainingModel) -> Mapping[str, Tensor]:
    """What is no parameter, never changes, and stands in the teacher where it stands in the student it is made of.

    Tables of positions and fixed filters are such: they are no secret of the teacher's. Running statistics are not.
    """
    own = {entry.name: entry.tensor for entry in named_tensors(model.student) if entry.kind != "parameter"}
    learned = ValueIndex(tuple(e for e in auxiliary_tensors(model.auxiliary()) if e.kind == "parameter"))
    common: dict[str, Tensor] = {}
    for module in model.auxiliary().values():
        for entry in named_tensors(module):
            mine = own.get(entry.name)
            fixed = entry.kind != "parameter" and not _is_statistic(entry.name) and learned.equal(entry.tensor) is None
            if fixed and mine is not None and _alike(mine, entry):
                common[entry.name] = mine
    return common


def wanted_values(model: TrainingModel) -> ValueIndex:
    """The values that nothing of the student may have."""
    return ValueIndex(auxiliary_tensors(model.auxiliary())).without(tuple(common_tensors(model).values()))


def check_values(model: TrainingModel) -> ValuesResult:
    """Look for a tensor of the student that has the values of an auxiliary tensor, or of one of its slices."""
    own = named_tensors(model.student, "student")
    index = wanted_values(model)
    findings = [
        f"{entry.name} has the values of {name}" for entry in own if (name := index.equal(entry.tensor)) is not None
    ]
    known = tuple(common_tensors(model).values())
    foreign = auxiliary_tensors(model.auxiliary())
    findings += [
        f"{run.name} has {run.numbers} numbers in a row of {run.other}" for run in common_runs(own, foreign, known)
    ]
    return ValuesResult(
        findings=listed(findings),
        passed=not findings,
        student_tensors=len(own),
        auxiliary_tensors=len(foreign),
        auxiliary_values=len(index),
        common=tuple(sorted(common_tensors(model))),
    )


def _with_slices(entry: NamedTensor) -> Iterator[tuple[str, Tensor]]:
    tensor = entry.tensor.detach()
    yield entry.name, tensor
    if tensor.dim() > 1 and 1 < len(tensor) <= _MOST_SLICES:
        for index, part in enumerate(tensor):
            yield f"{entry.name}[{index}]", part


def _is_statistic(name: str) -> bool:
    return bool(_STATISTIC.search(name.rsplit(".", 1)[-1]))


def _alike(mine: Tensor, entry: NamedTensor) -> bool:
    theirs = entry.tensor
    return mine.shape == theirs.shape and mine.dtype == theirs.dtype and torch.equal(mine.cpu(), theirs.cpu())


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: every bit of a word moves about half of the result's bits."""
    mixed = words + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return result
