"""Files of mixed sizes to normalised batches: our loader against torchvision's ImageFolder in a DataLoader.

CIFAR-100's images enlarged to about 300x400 with noise, as JPEG files in a temporary folder. Both decode with two
workers, crop a random part to 224x224, mirror and normalise in batches of 32. Measured by `data_path`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.figures import Figure
from ecd_deploy.data import LoaderBatches, load_data
from ecd_deploy.data.plan import StepPlan
from ecd_deploy.recipe.data import DataConfig

SIDE, BATCH, WORKERS, CLASSES, IMAGES = 224, 32, 2, 8, 64
_MEAN, _STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)


@dataclass(frozen=True)
class Measured:
    """Rows of the table, and what they were made from."""

    figures: tuple[Figure, ...]
    raw: dict[str, list[float]]


def measure(source: Path, rounds: int) -> Measured:
    """Images a second of both, in turns; `source` is CIFAR-100's folder."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _make_photographs(source, root)
        config = DataConfig(
            source="imagefolder",
            path=folder,
            cache_dir=str(root / "cache"),
            image_size=SIDE,
            loading="files",
            random_resized_crop=(0.08, 1.0),
            horizontal_flip=True,
            workers=WORKERS,
            mean=_MEAN,
            std=_STD,
        )
        data = load_data(config, seed=0)
        if data.train_files is None:
            raise RuntimeError("the training images are not files")
        plan = StepPlan(images=len(data.train_files), batch_size=BATCH, seed=0)
        batches = LoaderBatches(data.train_files, data.normalisation, plan, config, image_size=(SIDE, SIDE))
        loader = _torchvision(root)
        ours: list[float] = []
        theirs: list[float] = []
        with closing(batches):
            for epoch in range(1, rounds + 2):
                ours.append(_images_a_second(batch.images for batch in batches.epoch(epoch)))
                theirs.append(_images_a_second(images for images, _ in loader))
        del loader
    ours, theirs = ours[1:], theirs[1:]  # workers start in the first
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return Measured(
        (
            Figure.over(
                "data path, files of mixed sizes: times the images a second of torchvision, both with 2 workers",
                ratios,
                better="higher",
            ),
            Figure(
                name="data path, files of mixed sizes: ours",
                value=statistics.median(ours),
                better="higher",
                unit="images/s",
            ),
        ),
        {"mixed_sizes_ours": ours, "mixed_sizes_torchvision": theirs},
    )


def _make_photographs(source: Path, root: Path) -> None:
    draw = np.random.default_rng(0)
    for split, count in (("train", IMAGES), ("test", 1)):
        for folder in sorted((source / split).iterdir())[:CLASSES]:
            (root / split / folder.name).mkdir(parents=True)
            for path in sorted(folder.iterdir())[:count]:
                size = (int(draw.integers(360, 441)), int(draw.integers(260, 341)))
                with Image.open(path) as image:
                    pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC), dtype=np.float64)
                noisy = np.clip(pixels + draw.normal(0, 8, pixels.shape), 0, 255).astype(np.uint8)
                Image.fromarray(noisy).save(root / split / folder.name / f"{path.stem}.jpg", quality=90)


def _torchvision(root: Path) -> DataLoader[tuple[Tensor, Tensor]]:
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIDE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(_MEAN, _STD),
        ]
    )
    images = ImageFolder(str(root / "train"), transform)
    return DataLoader(images, batch_size=BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True)


def _images_a_second(batches: Iterator[Tensor]) -> float:
    """Over a whole epoch."""
    started = time.perf_counter()
    images = sum(len(batch) for batch in batches)
    return images / (time.perf_counter() - started)
