"""A folder of images of mixed sizes, as photographs have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ecd_deploy.recipe.data import DataConfig

CLASSES = ("cat", "dog", "fox")
SIDE = 8


def make_images(root: Path, *, train: int = 12, test: int = 2) -> Path:
    """Write `train` and `test` images for each class, 10 to 30 pixels wide and high, PNG and JPEG."""
    draw = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                height, width = draw.integers(10, 31, 2)
                pixels = draw.integers(0, 128, (height, width, 3)) + 127 * (np.arange(3) == label)
                suffix = ("png", "jpg")[number % 2]
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{number:02}.{suffix}")
    return root


def files_config(root: Path, **changes: object) -> DataConfig:
    """The data section that loads these files."""
    fields = {
        "source": "imagefolder",
        "path": str(root),
        "image_size": SIDE,
        "loading": "files",
        "cache_dir": str(root / ".cache"),
        "validation_fraction": 0.25,
        "horizontal_flip": True,
        "workers": 0,
        **changes,
    }
    return DataConfig.model_validate(fields)
