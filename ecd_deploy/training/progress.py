"""What a user sees while training: a bar with the time left, or a plain line an epoch."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ecd_deploy.training.scores import EpochRecord

_REFRESHES_PER_SECOND = 4


class TrainingProgress:
    """Progress over all steps of a training; silent without a console, plain if it is no terminal.

    With `balanced`, the balanced accuracy is shown too.
    """

    def __init__(
        self, console: Console | None, *, epochs: int, steps_per_epoch: int, steps_done: int, balanced: bool = False
    ) -> None:
        self._console = console
        self._balanced = balanced
        self._epochs = epochs
        self._bar: Progress | None = None
        if console is not None and steps_done:
            console.print(f"resuming after step {steps_done} of {epochs * steps_per_epoch}", soft_wrap=True)
        if console is not None and console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("steps"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
                refresh_per_second=_REFRESHES_PER_SECOND,
            )
            self._task = self._bar.add_task("training", total=epochs * steps_per_epoch, completed=steps_done)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start_epoch(self, epoch: int) -> None:
        """Show the epoch that begins, counted from 1."""
        if self._bar is not None:
            self._bar.update(self._task, description=f"epoch {epoch}/{self._epochs}")

    def step(self) -> None:
        """Count one optimiser step."""
        if self._bar is not None:
            self._bar.advance(self._task)

    def finish_epoch(self, record: EpochRecord) -> None:
        """Print the epoch's line."""
        if self._console is None:
            return
        student, teacher = record.validation_top1, record.teacher_validation_top1
        balanced = record.validation_balanced_accuracy if self._balanced else None
        beside = "" if teacher is None else f", teacher {teacher:.2%}"
        beside += "" if balanced is None else f"; balanced accuracy {balanced:.2%}"
        accuracy = "" if student is None else f"validation top-1: student {student:.2%}{beside}  "
        width = len(str(self._epochs))
        self._console.print(
            f"epoch {record.epoch:>{width}}/{self._epochs}  loss {record.loss:.4f}  "
            f"{accuracy}rate {record.learning_rate:.4g}  {record.seconds:.1f} s",
            highlight=False,
            soft_wrap=True,
        )
