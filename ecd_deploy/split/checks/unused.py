"""What of a student its logits do not depend on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecd_deploy.split.checks.construction import is_statistic
from ecd_deploy.split.inventory import named_tensors

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import nn


def unreached(student: nn.Module, reached: Collection[str]) -> tuple[str, ...]:
    """Names of the student's parameters and buffers that are not among those reached, batch counters aside."""
    identities = {id(entry.tensor) for entry in named_tensors(student) if entry.name in reached}
    modules = dict(student.named_modules())
    return tuple(
        entry.name
        for entry in named_tensors(student)
        if entry.kind != "attribute"
        and id(entry.tensor) not in identities
        and not _is_counter(modules[entry.name.rpartition(".")[0]], entry.name.rpartition(".")[2])
    )


def is_listed(name: str, unused: Collection[str]) -> bool:
    """Whether a tensor, or a module that holds it, is among those that may be unused."""
    return any(name == one or name.startswith(f"{one}.") for one in unused)


def _is_counter(module: nn.Module, name: str) -> bool:
    return is_statistic(module, name) and name == "num_batches_tracked"
