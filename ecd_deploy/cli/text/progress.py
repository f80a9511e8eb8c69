"""What a user sees of a run while it goes on: a bar with the time left of its training, or a plain line an epoch."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ecd_deploy.pipelines.record.progress import Event, Rehearsed, StepEnded
from ecd_deploy.training.progress import BatchEnded, EpochEnded, StoppedEarly, TrainingStarted

_REFRESHES_PER_SECOND = 4


class ShownProgress:
    """Shows a run's events; the bar, if there is one, ends with the training or with the `with` block."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_bar()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case BatchEnded():
                if self._bar is not None:
                    self._bar.update(self._task, completed=event.step, description=self._epoch(event.epoch))
            case TrainingStarted():
                self._begin(event)
            case EpochEnded():
                self._print(_line(event))
            case StoppedEarly():
                self._print(f"ended after {event.patience} epochs without a better one (train.patience)")
            case Rehearsed():
                self._print(event.words)
            case StepEnded(step="train"):
                self._end_bar()

    def _begin(self, event: TrainingStarted) -> None:
        self._epochs, batches = event.epochs, event.epochs * event.batches_per_epoch
        if event.batches_done:
            self._print(f"resuming after step {event.batches_done} of {batches}")
        if not self._console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            refresh_per_second=_REFRESHES_PER_SECOND,
        )
        first = min(event.epochs, event.batches_done // event.batches_per_epoch + 1)
        self._task = self._bar.add_task(self._epoch(first), total=batches, completed=event.batches_done)
        self._bar.start()

    def _epoch(self, number: int) -> str:
        return f"epoch {number}/{self._epochs}"

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _line(event: EpochEnded) -> str:
    record = event.record
    student, teacher = record.validation_top1, record.teacher_validation_top1
    beside = "" if teacher is None else f", teacher {teacher:.2%}"
    accuracy = "" if student is None else f"validation top-1: student {student:.2%}{beside}  "
    width = len(str(event.epochs))
    return (
        f"epoch {record.epoch:>{width}}/{event.epochs}  loss {record.loss:.4f}  "
        f"{accuracy}rate {record.learning_rate:.4g}  {record.seconds:.1f} s"
    )
