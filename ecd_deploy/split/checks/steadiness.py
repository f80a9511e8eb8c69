"""What every comparison of logits rests on: in evaluation mode, the student gives the same logits for the same images.

Without this the teacher would be accused of what the student does by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ecd_deploy.distill.student.locate import Watched, described, first_differing, watched
from ecd_deploy.split.checks.perturbation import bit_difference
from ecd_deploy.split.inventory import named_tensors, tensor_bytes
from ecd_deploy.split.joint import student_logits

if TYPE_CHECKING:
    from torch import nn

_CALLS = (0, 0, 0, 0, 1)  # the random states that the calls begin with


def find_unsteadiness(student: nn.Module, images: Tensor) -> str | None:
    """Say how the student's logits vary by themselves, or what it keeps from one call to the next; None if nothing.

    Args:
        student: in evaluation mode; what it keeps is changed, random state is not.
        images: (N, C, H, W).
    """
    before = {entry.name: tensor_bytes(entry.tensor) for entry in named_tensors(student)}
    calls = [_call(student, images, seed) for seed in _CALLS]
    after = {entry.name: tensor_bytes(entry.tensor) for entry in named_tensors(student)}
    kept = [name for name in after if before.get(name) != after[name]]
    if kept:
        owner = described(student, kept[0].rpartition(".")[0] or None)
        return (
            f"the student keeps state in evaluation mode: a call changes '{kept[0]}' of {owner}; let forward change "
            "nothing there"
        )
    (first, seen), others = calls[0], calls[1:]
    for seed, (logits, found) in zip(_CALLS[1:], others, strict=True):
        if bit_difference(logits, first) is None:
            continue
        where = described(student, first_differing(seen, found, _differs))
        if seed == _CALLS[0]:
            why = "its outcome depends on the calls before, or on random numbers that are not torch's"
        else:
            why = "it draws random numbers: give F.dropout its training=self.training, or use nn.Dropout"
        return f"the student's logits vary by themselves in evaluation mode, first in {where}; {why}"
    return None


def _call(student: nn.Module, images: Tensor, seed: int) -> tuple[Tensor, Watched]:
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices), watched(student) as found:
        torch.manual_seed(seed)
        return student_logits(student, images).clone(), found


def _differs(first: Tensor, second: Tensor) -> bool:
    return bit_difference(first, second) is not None
