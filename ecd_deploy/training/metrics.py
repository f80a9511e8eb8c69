"""`metrics.jsonl`, one line an epoch, and what it is tracked by."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from ecd_deploy.errors import ArtefactError
from ecd_deploy.files import write_atomic
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.training.names import METRICS_NAME
from ecd_deploy.training.scores import EpochRecord
from ecd_deploy.training.trackers import start_trackers


class MetricsLog:
    """Writes each epoch's record; the file starts as exactly the `history` of the training so far.

    Raises:
        ArtefactError: the folder cannot be written.
    """

    def __init__(self, directory: Path, history: tuple[EpochRecord, ...], recipe: Recipe) -> None:
        self._path = directory / METRICS_NAME
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtefactError(f"cannot write {directory}: {error.strerror}") from error
        write_atomic(self._path, "".join(_line(record) for record in history).encode())
        self._trackers = start_trackers(recipe, directory, history[-1].step + 1 if history else 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._trackers.close(failed=kind is not None)

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
        self._trackers.log(record.scalars(), record.step)


def _line(record: EpochRecord) -> str:
    return record.model_dump_json(exclude_none=True) + "\n"
