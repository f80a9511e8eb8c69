"""`metrics.jsonl`, one line an epoch, and TensorBoard events beside it."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ecd_deploy.errors import ArtefactError
from ecd_deploy.files import write_atomic
from ecd_deploy.training.names import METRICS_NAME, TENSORBOARD_FOLDER
from ecd_deploy.training.scores import EpochRecord

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


class MetricsLog:
    """Writes each epoch's record; the file starts as exactly the `history` of the training so far.

    Raises:
        ArtefactError: the folder cannot be written.
    """

    def __init__(self, directory: Path, history: tuple[EpochRecord, ...], *, tensorboard: bool) -> None:
        self._path = directory / METRICS_NAME
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtefactError(f"cannot write {directory}: {error.strerror}") from error
        write_atomic(self._path, "".join(_line(record) for record in history).encode())
        self._events: SummaryWriter | None = None
        if tensorboard:
            first_step = history[-1].step + 1 if history else 0
            self._events = _open_events(directory / TENSORBOARD_FOLDER, first_step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._events is not None:
            self._events.close()

    def append(self, record: EpochRecord) -> None:
        """Write one record durably.

        Raises:
            ArtefactError: the file cannot be written.
        """
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(record))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ArtefactError(f"cannot write {self._path}: {error.strerror}") from error
        if self._events is not None:
            try:
                for name, value in record.scalars().items():
                    self._events.add_scalar(name, value, record.step)
                self._events.flush()
            except OSError as error:
                raise ArtefactError(
                    f"cannot write {self._path.with_name(TENSORBOARD_FOLDER)}: {error.strerror}"
                ) from error


def _line(record: EpochRecord) -> str:
    return record.model_dump_json(exclude_none=True) + "\n"


def _open_events(folder: Path, first_step: int) -> SummaryWriter:
    from torch.utils.tensorboard.writer import SummaryWriter

    try:
        # events from first_step on, left by a run that was interrupted, are hidden by TensorBoard
        return SummaryWriter(str(folder), purge_step=first_step)
    except OSError as error:
        raise ArtefactError(f"cannot write {folder}: {error.strerror}") from error
