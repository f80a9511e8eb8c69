"""SIGKILL in the middle of a training, `--resume`, and what differs from a training that was left alone."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from benchmarks.gpu.commands import DETERMINISTIC, Ended, run_command
from benchmarks.gpu.deterministic import WARN
from ecd_deploy.errors import CheckpointError
from ecd_deploy.records import Record
from ecd_deploy.training.checkpoints.state import Checkpoint
from ecd_deploy.training.checkpoints.store import CheckpointStore
from ecd_deploy.training.names import CHECKPOINTS_FOLDER

DISTANCE_BOUND = 0.05
"""Largest relative distance of the weights where an operation has no deterministic form.

Two trainings with other seeds are about 1.4 apart, two that differ in rounding were expected far below this bound. It
was chosen before any run on a GPU.
"""

_NO_DETERMINISTIC_FORM = re.compile(r"(\S+) does not have a deterministic implementation")


class Resumed(Record):
    """A training that was killed and went on, against one that was left alone.

    Attributes:
        commands: how those ended that had to succeed; the killed one is not among them.
        killed_after: steps of the newest checkpoint when it was killed.
        operation: that has no deterministic form on this device and was used as it is; None if all have.
        differing: tensors of the last checkpoint, weights and momentum, that are not bit-equal.
        distance: of all weights, relative; 0 if they are bit-equal.
    """

    commands: tuple[Ended, ...]
    killed_after: int
    operation: str | None
    differing: tuple[str, ...]
    distance: float

    def faults(self) -> tuple[str, ...]:
        """What is not as it must be."""
        failed = [f"{' '.join(end.command)} ended with {end.code}" for end in self.commands if end.code != 0]
        if failed:
            return tuple(failed)
        if self.operation is None and self.differing:
            return (
                f"a resumed training differs, though all operations are deterministic: {', '.join(self.differing)}",
            )
        if not self.distance <= DISTANCE_BOUND:
            return (f"weights of a resumed training are {self.distance:.3f} away, more than {DISTANCE_BOUND}",)
        return ()

    def summary(self) -> str:
        """A line of the table."""
        if self.faults():
            return "SIGKILL and --resume: failed"
        how = "bit-equal" if not self.differing else f"weights {self.distance:.1e} away"
        without = "" if self.operation is None else f"; {self.operation} has no deterministic form"
        return f"SIGKILL after step {self.killed_after} and --resume: {how}{without}"


def kill_and_resume(folder: Path, recipe: tuple[str, ...], kill_after: int, until: float) -> Resumed:
    """Train twice with deterministic algorithms, one of them killed as soon as it has saved `kill_after` steps.

    Args:
        folder: gets the run directories.
        recipe: name and `--set` arguments of `train`; it must save within epochs.
        kill_after: steps.
        until: reading of `time.monotonic` at which commands are ended.
    """
    found = _once(folder, "strict", recipe, kill_after, until, warn=False)
    operation = next((match[1] for end in found.commands if (match := _NO_DETERMINISTIC_FORM.search(end.tail))), None)
    if operation is None:
        return found
    tolerant = _once(folder, "tolerant", recipe, kill_after, until, warn=True)
    return tolerant.model_copy(update={"operation": operation})


def _once(folder: Path, name: str, recipe: tuple[str, ...], kill_after: int, until: float, *, warn: bool) -> Resumed:
    alone, killed = folder / f"{name}-alone", folder / f"{name}-killed"
    store = CheckpointStore(killed / CHECKPOINTS_FOLDER)

    def train(run: Path, *, steps: int | None = None) -> Ended:
        arguments = ["train", run.name, "--recipe", *recipe, "--resume", *((WARN,) if warn else ())]
        is_due = None if steps is None else (lambda: _steps_saved(store) >= steps)
        return run_command(DETERMINISTIC, arguments, folder, until, kill_when=is_due)

    with ThreadPoolExecutor(2) as threads:
        undisturbed = threads.submit(train, alone)
        train(killed, steps=kill_after)
        killed_after = _steps_saved(store)
        commands = (train(killed), undisturbed.result())
    if any(end.code != 0 for end in commands):
        return Resumed(commands=commands, killed_after=killed_after, operation=None, differing=(), distance=math.nan)
    expected, found = newest_checkpoint(alone), newest_checkpoint(killed)
    return Resumed(
        commands=commands,
        killed_after=killed_after,
        operation=None,
        differing=(*_differing(expected.weights, found.weights), *_differing(expected.optimizer, found.optimizer)),
        distance=_distance(expected.weights, found.weights),
    )


def newest_checkpoint(run: Path) -> Checkpoint:
    """Read the newest checkpoint of a run directory.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    checkpoint = CheckpointStore(run / CHECKPOINTS_FOLDER).newest()
    if checkpoint is None:
        raise CheckpointError(f"{run} has no checkpoint")
    return checkpoint


def _steps_saved(store: CheckpointStore) -> int:
    paths = store.paths()
    return int(paths[-1].name.split("-")[1]) if paths else 0


def _differing(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    return [name for name, tensor in expected.items() if name not in found or not tensor.equal(found[name])]


def _distance(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> float:
    floating = [name for name, tensor in expected.items() if tensor.is_floating_point()]
    apart = math.hypot(*(float((found[name] - expected[name]).norm()) for name in floating))
    return apart / math.hypot(*(float(expected[name].norm()) for name in floating))
