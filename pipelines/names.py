"""Names of the files that a step leaves for those after it, where no model of its own goes with them."""

from __future__ import annotations

from typing import Final

TRAINING_NAME: Final = "training.json"
SPLIT_NAME: Final = "split.json"
WEIGHTS_NAME: Final = "split.safetensors"
