"""Names of what a training leaves in its run directory."""

from __future__ import annotations

from typing import Final

METRICS_NAME: Final = "metrics.jsonl"
TENSORBOARD_FOLDER: Final = "tensorboard"
TRACKERS_NAME: Final = "trackers.json"
CHECKPOINTS_FOLDER: Final = "checkpoints"
