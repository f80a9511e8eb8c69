"""A running average of the student's weights, kept on the device: what is evaluated and deployed, if it is chosen.

Polyak and Juditsky (1992); its decay rises with the steps as in TensorFlow's ExponentialMovingAverage, so that the
average of a short training is not one of its beginning.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ecd_deploy.compat.torch import move_towards
from ecd_deploy.distill import TrainingModel


class WeightAverage:
    """The average `a := a + (1 - decay) (w - a)` after each step; statistics of norms are averaged too.

    What `update` does is the same in every step, so that a CUDA graph can hold it: the number that changes is in a
    tensor, set before it by `begin_step`.

    Args:
        model: whose student is averaged; it is not changed.
        decay: share of the average that a step keeps, once the steps are many.

    Attributes:
        student: a student with the average as its weights, in evaluation mode.
    """

    def __init__(self, model: TrainingModel, decay: float) -> None:
        self.student: nn.Module = copy.deepcopy(model.student).eval().requires_grad_(False)
        self._decay = decay
        pairs = list(zip(_tensors(self.student), _tensors(model.student), strict=True))
        self._averages = [mine for mine, _ in pairs if mine.is_floating_point()]
        self._values = [value for mine, value in pairs if mine.is_floating_point()]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]
        self._rate = torch.zeros((), device=next(model.student.parameters()).device)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What `update` changes, in place."""
        return (*self._averages, *(mine for mine, _ in self._counters))

    def begin_step(self, step: int) -> None:
        """Say how many steps were done before this one."""
        self._rate.fill_(1 - min(self._decay, (1 + step) / (10 + step)))

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights as they are."""
        move_towards(self._averages, self._values, self._rate)
        for mine, value in self._counters:
            mine.copy_(value)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from the average of a checkpoint."""
        self.student.load_state_dict(dict(state))


def _tensors(student: nn.Module) -> list[Tensor]:
    """Parameters and buffers, each once."""
    return [*(parameter.detach() for parameter in student.parameters()), *student.buffers()]
