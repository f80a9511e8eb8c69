"""Check: no tensor of the student repeats, by value, an auxiliary one or numbers in a row of one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecd_deploy.split.inventory import NamedTensor, auxiliary_tensors, named_tensors, tensor_bytes
from ecd_deploy.split.results import ValuesResult, listed
from ecd_deploy.split.runs import common_runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ecd_deploy.distill import TrainingModel

Fingerprint = tuple[str, int, int]
"""Data type, number of elements, and a 64-bit hash of the elements whatever their order."""

LEAST_ELEMENTS = 8
_MOST_SLICES = 64
_STATISTIC = re.compile(r"mean|var|std|running|moving|avg|average|ema|stat|momentum", re.IGNORECASE)
_INTEGERS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class ValueIndex:
    """Finds tensors by value, in any order, among named tensors and their slices along the first dimension."""

    def __init__(self, names: Mapping[Fingerprint, str]) -> None:
        self._names = names

    @classmethod
    def of(cls, tensors: Iterable[NamedTensor]) -> ValueIndex:
        """Index all of these; the first name of a value is kept."""
        names: dict[Fingerprint, str] = {}
        for entry in tensors:
            for part, found in _fingerprints(entry.tensor, slices=True):
                names.setdefault(found, entry.name + part)
        return cls(names)

    def __len__(self) -> int:
        return len(self._names)

    def equal(self, tensor: Tensor) -> str | None:
        """Name of what has the values of `tensor`, in any order."""
        return next((self._names.get(found) for _, found in _fingerprints(tensor)), None)

    def without(self, tensors: Iterable[Tensor]) -> ValueIndex:
        """The same index, but for the values of these."""
        known = {found for tensor in tensors for _, found in _fingerprints(tensor)}
        return ValueIndex({key: name for key, name in self._names.items() if key not in known})

    def and_of(self, other: ValueIndex) -> ValueIndex:
        """Both; a value that both have goes by its name in this one."""
        return ValueIndex({**other._names, **self._names})


@dataclass(frozen=True)
class AuxiliaryValues:
    """What nothing of the student may repeat.

    Attributes:
        tensors: of the auxiliary modules.
        common: those of the student that both may have, by name: no parameter, never changes, and stands in the
            teacher where it stands in the student it is made of. Tables of positions and fixed filters are such;
            running statistics are not.
        index: the values of `tensors`, without the common ones.
    """

    tensors: tuple[NamedTensor, ...]
    common: Mapping[str, Tensor]
    index: ValueIndex


def auxiliary_values(model: TrainingModel) -> AuxiliaryValues:
    """Index what does not leave; takes seconds for tens of millions of numbers, so that it is made once a split."""
    own = {entry.name: entry.tensor for entry in named_tensors(model.student) if entry.kind != "parameter"}
    tensors = auxiliary_tensors(model.auxiliary())
    learned = ValueIndex.of(entry for entry in tensors if entry.kind == "parameter")
    common: dict[str, Tensor] = {}
    for module in model.auxiliary().values():
        for entry in named_tensors(module):
            mine = own.get(entry.name)
            fixed = entry.kind != "parameter" and not _is_statistic(entry.name) and learned.equal(entry.tensor) is None
            if fixed and mine is not None and _alike(mine, entry):
                common[entry.name] = mine
    rest = ValueIndex.of(entry for entry in tensors if entry.kind != "parameter").without(common.values())
    return AuxiliaryValues(tensors, common, learned.and_of(rest))


def check_values(model: TrainingModel, foreign: AuxiliaryValues) -> ValuesResult:
    """Look for a tensor of the student that has the values of an auxiliary tensor, or of one of its slices."""
    own = named_tensors(model.student, "student")
    findings = [
        f"{entry.name} has the values of {name}"
        for entry in own
        if (name := foreign.index.equal(entry.tensor)) is not None
    ]
    findings += [
        f"{run.name} has {run.numbers} numbers in a row of {run.other}"
        for run in common_runs(own, foreign.tensors, tuple(foreign.common.values()))
    ]
    return ValuesResult(
        findings=listed(findings),
        passed=not findings,
        student_tensors=len(own),
        auxiliary_tensors=len(foreign.tensors),
        auxiliary_values=len(foreign.index),
        common=tuple(sorted(foreign.common)),
    )


def _fingerprints(tensor: Tensor, *, slices: bool = False) -> Iterator[tuple[str, Fingerprint]]:
    """Hashes of a tensor, and of its slices if asked for, that a transposed, permuted or reshaped copy has as well.

    Nothing where the elements are too few, or are all alike: zeros, ones and small tables are nobody's.
    """
    if tensor.numel() < LEAST_ELEMENTS or tensor.is_complex():
        return
    dtype = str(tensor.dtype).removeprefix("torch.")
    words = np.frombuffer(tensor_bytes(tensor), dtype=_INTEGERS[tensor.element_size()]).astype(np.uint64)
    mixed = _mixed(words)
    if words.min() != words.max():
        yield "", (dtype, words.size, int(mixed.sum(dtype=np.uint64)))
    size = words.size // len(tensor) if tensor.dim() > 1 else 0
    if slices and size >= LEAST_ELEMENTS and 1 < len(tensor) <= _MOST_SLICES:
        sums = mixed.reshape(-1, size).sum(axis=1, dtype=np.uint64).tolist()
        rows = words.reshape(-1, size)
        for place in np.flatnonzero(rows.min(axis=1) != rows.max(axis=1)).tolist():
            yield f"[{place}]", (dtype, size, sums[place])


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
