"""How long the trainings of the evidence are: fixed from what they were measured to take, before the first result."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ecd_deploy.records import Record

_MARGIN = 1.1  # of the seconds of an epoch: a machine does not keep its pace
_MULTIPLE = 4  # of epochs: the milestones are at a half and at three quarters


class ArmCost(Record):
    """What a training of an arm takes.

    Attributes:
        arm: its name.
        fixed_seconds: whatever the number of epochs: building, the first step, testing.
        epoch_seconds: of each epoch.
    """

    arm: str
    fixed_seconds: float
    epoch_seconds: float

    def seconds(self, epochs: int) -> float:
        """Expected for a training."""
        return self.fixed_seconds + epochs * self.epoch_seconds


class Schedule(Record):
    """What is trained.

    Attributes:
        arms: names, the baseline's first.
        seeds: pairs.
        epochs: of each training.
        milestones: epochs after which the rate falls, as the paper's 100 and 150 of 200.
        expected_seconds: of all trainings.
    """

    arms: tuple[str, ...]
    seeds: int
    epochs: int
    milestones: tuple[int, int]
    expected_seconds: float


def longest_epochs(costs: Sequence[ArmCost], seeds: int, seconds: float, most: int) -> int:
    """The most epochs, a multiple of four, with which all arms and seeds fit into the seconds; 0 if none does."""
    left = seconds - seeds * sum(cost.fixed_seconds for cost in costs)
    epochs = left / (seeds * sum(cost.epoch_seconds for cost in costs) * _MARGIN)
    return max(0, min(math.floor(epochs / _MULTIPLE) * _MULTIPLE, most))


def choose_schedule(
    costs: Sequence[ArmCost], *, seeds: int, seconds: float, least: int, most: int, least_with_third: int
) -> Schedule:
    """Choose arms and epochs.

    Args:
        costs: of the baseline, the arm that is compared with it, and perhaps a third one.
        seeds: pairs.
        seconds: for all of them.
        least: epochs that a training must have; with these it is begun even where they do not fit, and the pairs that
            do are kept.
        most: epochs.
        least_with_third: the third arm is trained too if all seeds fit with at least so many epochs.
    """
    chosen = list(costs[:2])
    if len(costs) > len(chosen) and longest_epochs(costs, seeds, seconds, most) >= least_with_third:
        chosen = list(costs)
    epochs = max(least, longest_epochs(chosen, seeds, seconds, most))
    return Schedule(
        arms=tuple(cost.arm for cost in chosen),
        seeds=seeds,
        epochs=epochs,
        milestones=(epochs // 2, epochs * 3 // 4),
        expected_seconds=round(seeds * sum(cost.seconds(epochs) for cost in chosen), 1),
    )
