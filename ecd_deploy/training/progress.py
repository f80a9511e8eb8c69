"""What a training tells of its progress, event by event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecd_deploy.training.scores import EpochRecord


@dataclass(frozen=True, kw_only=True)
class TrainingStarted:
    """The first batch follows.

    Attributes:
        epochs: that the recipe asks for.
        batches_per_epoch: of them.
        batches_done: in the run that is resumed; 0 in a new one.
    """

    epochs: int
    batches_per_epoch: int
    batches_done: int


@dataclass(frozen=True, kw_only=True)
class BatchEnded:
    """An optimiser step was done.

    Attributes:
        epoch: counted from 1.
        step: counted from 1 over the whole training.
    """

    epoch: int
    step: int


@dataclass(frozen=True, kw_only=True)
class EpochEnded:
    """An epoch was trained, evaluated and logged.

    Attributes:
        record: losses and accuracies, as they stand in `metrics.jsonl`.
        epochs: that the recipe asks for.
    """

    record: EpochRecord
    epochs: int


@dataclass(frozen=True, kw_only=True)
class StoppedEarly:
    """The training ended before its last epoch, since none was better for `patience` epochs."""

    patience: int


TrainingEvent = TrainingStarted | BatchEnded | EpochEnded | StoppedEarly
OnTrainingEvent = Callable[[TrainingEvent], None]


def ignore(event: object) -> None:
    """Where nobody listens."""
    del event
