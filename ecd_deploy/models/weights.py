"""The weights that a student starts from: a file's or a library's tensors, put into a fresh build."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ecd_deploy.errors import StudentError

if TYPE_CHECKING:
    from torch import Tensor, nn

_COUNTER = "num_batches_tracked"  # of batch norms: files of other programs leave it out
_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class StartWeights:
    """Tensors to start from.

    Attributes:
        origin: in words.
        tensors: by their names in the student.
        mean: of each channel, as the weights were trained with; None if nobody knows.
        std: likewise.
        classes: names of the logits; None if nobody knows.
    """

    origin: str
    tensors: Mapping[str, Tensor]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] | None = None

    @property
    def digest(self) -> str:
        """SHA-256 over names, types, shapes and values."""
        total = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return total.hexdigest()


def head_tensors(student: nn.Module, wider: nn.Module) -> frozenset[str]:
    """Names of the tensors whose shape depends on the number of classes.

    Args:
        student: for some number of classes.
        wider: the same network for another one.
    """
    others = {name: tensor.shape for name, tensor in wider.state_dict().items()}
    return frozenset(name for name, tensor in student.state_dict().items() if tensor.shape != others.get(name))


def fill(student: nn.Module, weights: StartWeights, fresh: frozenset[str] = frozenset()) -> None:
    """Copy the weights into a student.

    Args:
        student: filled in place.
        weights: for every tensor of the student, and no other, but for those that stay fresh.
        fresh: names of tensors that keep their values.

    Raises:
        StudentError: the weights are of another network; tensors are named.
    """
    own = student.state_dict()
    given = {name: tensor for name, tensor in weights.tensors.items() if name not in fresh}
    wanted = own.keys() - fresh
    missing = sorted(name for name in wanted - given.keys() if not name.endswith(_COUNTER))
    problems = [f"{name} is missing in them" for name in missing]
    problems += [f"the network has no {name}" for name in sorted(given.keys() - wanted)]
    for name in sorted(wanted & given.keys()):
        if given[name].shape != own[name].shape:
            problems.append(f"{name} has {tuple(given[name].shape)}, the network {tuple(own[name].shape)}")
        elif given[name].is_floating_point() and not bool(given[name].isfinite().all()):
            problems.append(f"{name} is not finite")
    if problems:
        shown = problems[:_SHOWN] + ([f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else [])
        raise StudentError(
            "\n  ".join((f"student.weights: {weights.origin} does not fit {type(student).__name__}:", *shown))
        )
    student.load_state_dict({**own, **given})
