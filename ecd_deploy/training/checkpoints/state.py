"""What a checkpoint holds: the whole training after a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from ecd_deploy.distill import TermName
from ecd_deploy.records import Record
from ecd_deploy.training.scores import EpochRecord, EpochScore


class ScalerState(Record):
    """Loss scaling of fp16 training."""

    scale: float
    growth_tracker: int


class TrainingIdentity(Record):
    """What decides the bits of a training; a checkpoint is only resumed by an equal one.

    Attributes:
        recipe_digest: of the recipe that is trained.
        data_digest: of the images.
        steps_per_epoch: optimiser steps of an epoch.
        threads: CPU threads of torch in each process: another count adds in another order.
        processes: over which each step is spread.
        device: "cpu", "cuda", ...
        torch: its version.
    """

    recipe_digest: str
    data_digest: str
    steps_per_epoch: int
    threads: int
    processes: int
    device: str
    torch: str


class LossSums(Record):
    """One process's sums since its epoch began.

    Attributes:
        names: of the objective's terms.
        sums: the objective's, then each of its terms', weighted by images.
        images: that were summed over.
    """

    names: tuple[TermName, ...]
    sums: tuple[float, ...]
    images: int


class RunningEpoch(Record):
    """What is known of an epoch between its steps.

    Attributes:
        losses: of each process, in their order.
        seconds: wall time spent on it.
    """

    losses: tuple[LossSums, ...]
    seconds: float


class CheckpointState(Record):
    """Everything of a checkpoint that is not a tensor.

    Attributes:
        version: of this layout.
        training: which training it is of.
        step: optimiser steps done.
        history: the record of every finished epoch, from which `metrics.jsonl` is restored.
        best: the best score so far; None before the first epoch is finished, and without a validation split.
        running: None if the checkpoint is of the end of an epoch.
        scaler: None unless training in fp16.
        stacked_with: names of the runs that were trained in the same steps, or in some of them.
    """

    version: Literal[3] = 3
    training: TrainingIdentity
    step: int
    history: tuple[EpochRecord, ...]
    best: EpochScore | None
    running: RunningEpoch | None = None
    scaler: ScalerState | None = None
    stacked_with: tuple[str, ...] = ()


@dataclass(frozen=True)
class Checkpoint:
    """The whole training after a step: tensors by name, the optimiser's, the student's average if any, and the rest."""

    state: CheckpointState
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    average: Mapping[str, Tensor] = field(default_factory=dict)
