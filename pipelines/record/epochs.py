"""`metrics.jsonl`: what was recorded of each epoch."""

from __future__ import annotations

from ecd_deploy.pipelines.record.names import METRICS_NAME
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.training import EpochRecord


def read_epochs(directory: RunDirectory) -> tuple[EpochRecord, ...]:
    """Read the record of each epoch.

    Raises:
        ArtefactError: the file is missing or was changed.
    """
    lines = directory.read(METRICS_NAME).splitlines()
    return tuple(EpochRecord.from_json(line, f"{METRICS_NAME} holds what is no epoch") for line in lines)
