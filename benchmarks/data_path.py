"""From image files to normalised, augmented batches: against torchvision's ImageFolder in a DataLoader, and numpy.

CIFAR-100 as PNG files, in the folder that ECD_DEPLOY_CIFAR100 names. Both shuffle, pad by 4, crop, mirror and
normalise in batches of 128. Ours reads the cache of decoded images, as every run but a folder's first does;
the first one's decoding is timed by itself. The loop in numpy has the decoded images in memory, padded beforehand.
Files of mixed sizes are measured in `benchmarks.loader_path`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks import loader_path
from benchmarks.figures import Figure, Report, cifar100
from ecd_deploy.data import ImageSet, TrainBatches, load_data
from ecd_deploy.data.plan import StepPlan
from ecd_deploy.recipe.data import DataConfig

BATCH, PADDING, WORKERS, ROUNDS = 128, 4, 2, 5
WARM_UP_BATCHES, THEIR_BATCHES, OUR_BATCHES = 10, 60, 300
MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)


def measure() -> Report:
    """Images a second of both, in turns."""
    setting = {"batch": BATCH, "workers": WORKERS, "rounds": ROUNDS, "images": "CIFAR-100 as PNG files"}
    root = cifar100()
    with tempfile.TemporaryDirectory() as cache:
        config = DataConfig(source="imagefolder", path=str(root), cache_dir=cache, mean=MEAN, std=STD)
        started = time.perf_counter()
        load_data(config, seed=0)
        decoding = time.perf_counter() - started
        started = time.perf_counter()
        data = load_data(config, seed=0)
        opening = time.perf_counter() - started
    plan = StepPlan(images=len(data.train), batch_size=BATCH, seed=0)
    batches = TrainBatches(data.train, data.normalisation, plan, crop_padding=PADDING, horizontal_flip=True)
    loader = torchvision_loader(root)
    ours: list[float] = []
    numpys: list[float] = []
    theirs: list[float] = []
    for epoch in range(1, ROUNDS + 1):
        ours.append(images_a_second((batch.images for batch in batches.epoch(epoch)), OUR_BATCHES))
        numpys.append(images_a_second(numpy_batches(data.train, epoch), OUR_BATCHES))
        theirs.append(images_a_second((images for images, _ in loader), THEIR_BATCHES))
    mixed = loader_path.measure(root, ROUNDS)
    of_torchvision, of_numpy = (
        [mine / other for mine, other in zip(ours, others, strict=True)] for others in (theirs, numpys)
    )
    images = sum(len(split) for split in (data.train, data.validation, data.test) if split is not None)
    return Report(
        benchmark="data_path",
        figures=(
            Figure.over(
                "data path: times the images a second of torchvision with 2 workers",
                of_torchvision,
                better="higher",
                must=10,
                aim=30,
            ),
            Figure.over("data path: times the images a second of a loop in numpy", of_numpy, better="higher", must=1),
            Figure(name="data path: ours", value=statistics.median(ours), better="higher", unit="images/s"),
            Figure(
                name="data path: decoding a folder for the first time",
                value=images / decoding,
                better="higher",
                unit="images/s",
            ),
            Figure(name="data path: opening what is decoded", value=opening, better="lower", unit="s"),
            *mixed.figures,
        ),
        setting=setting,
        raw={
            "ours": ours,
            "torchvision": theirs,
            "numpy": numpys,
            "decoding_seconds": decoding,
            "opening_seconds": opening,
            **mixed.raw,
        },
    )


def torchvision_loader(root: Path, between: Sequence[object] = (), after: Sequence[object] = ()) -> DataLoader[Any]:
    """Batches of ImageFolder with crop and mirror; `between` comes after these, `after` after the normalisation."""
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=PADDING),
            transforms.RandomHorizontalFlip(),
            *between,
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
            *after,
        ]
    )
    images = ImageFolder(str(root / "train"), transform)
    return DataLoader(images, batch_size=BATCH, shuffle=True, num_workers=WORKERS)


def numpy_batches(images: ImageSet, seed: int) -> Iterator[Tensor]:
    """One epoch as a plain loop over the images of each batch makes it."""
    draws = np.random.default_rng(seed)
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (MEAN, STD))
    height, width = images.images.shape[2:]
    padded = np.pad(images.images, ((0, 0), (0, 0), (PADDING, PADDING), (PADDING, PADDING)))
    order = draws.permutation(len(images))
    for start in range(0, len(order) - BATCH + 1, BATCH):
        batch = np.empty((BATCH, *images.images.shape[1:]), np.float32)
        tops, lefts = draws.integers(2 * PADDING + 1, size=(2, BATCH))
        mirrored = draws.random(BATCH) < 1 / 2
        for place, image in enumerate(order[start : start + BATCH]):
            top, left = tops[place], lefts[place]
            crop = padded[image, :, top : top + height, left : left + width]
            batch[place] = crop[:, :, ::-1] if mirrored[place] else crop
        batch /= 255
        batch -= mean
        batch /= std
        yield torch.from_numpy(batch)


def images_a_second(batches: Iterator[Tensor], count: int) -> float:
    """Over `count` batches, after some that warm up."""
    for _ in range(WARM_UP_BATCHES):
        next(batches)
    images = 0
    started = time.perf_counter()
    for _, batch in zip(range(count), batches, strict=False):
        images += len(batch)
    return images / (time.perf_counter() - started)
