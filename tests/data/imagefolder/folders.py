"""Small image folders for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ecd_deploy.data import DataSplits, load_data
from ecd_deploy.recipe.data import DataConfig

CLASSES = ("cat", "dog", "fox")
SIDE = 8


def save_noise(path: Path, draw: np.random.Generator) -> None:
    """Write a square of noise, in the format of the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)


def make_folders(root: Path, splits: Sequence[str] = ("train", "test"), classes: Sequence[str] = CLASSES) -> Path:
    """Write images of noise, six for each class of `train` and two for each of the others; all differ."""
    draw = np.random.default_rng(0)
    for split in splits:
        for name in classes:
            for number in range(6 if split == "train" else 2):
                save_noise(root / split / name / f"{number}.png", draw)
    return root


def load(root: Path, **changes: object) -> DataSplits:
    """Load them, with a third of the training images cut off for validation."""
    fields = {
        "source": "imagefolder",
        "path": str(root),
        "validation_fraction": 0.34,
        "cache_dir": str(root / ".cache"),
        **changes,
    }
    return load_data(DataConfig.model_validate(fields), seed=0)
