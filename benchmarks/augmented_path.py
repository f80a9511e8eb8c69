"""From image files to augmented batches: this project against torchvision's own transforms in a DataLoader.

As `data_path`, with crop and mirror, and besides them what an arm names. Theirs draws for each image in two workers,
on Pillow images; ours draws for each image too, and changes whole batches in the process that trains. Processor time
is of one process, without workers: with OMP_NUM_THREADS=1 its ratio holds on a machine that others use.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torchvision.transforms import v2

from benchmarks.data_path import (
    BATCH,
    MEAN,
    PADDING,
    STD,
    WARM_UP_BATCHES,
    WORKERS,
    images_a_second,
    torchvision_loader,
)
from benchmarks.figures import Figure, Report, cifar100
from ecd_deploy.data import DataSplits, TrainBatches, load_data
from ecd_deploy.data.augmentation.augmenter import Augmenter
from ecd_deploy.data.plan import StepPlan
from ecd_deploy.recipe.augment import AugmentConfig
from ecd_deploy.recipe.data import DataConfig
from ecd_deploy.training.steps.allocator import keep_freed_memory

ROUNDS, OUR_BATCHES, THEIR_BATCHES = 5, 150, 20
THEIR_IMAGES = 600  # of which processor time is taken
_BILINEAR = v2.InterpolationMode.BILINEAR


@dataclass(frozen=True)
class Arm:
    """What both do besides crop and mirror; theirs before and after images become tensors."""

    name: str
    ours: AugmentConfig
    between: Sequence[object]
    after: Sequence[object] = ()


ARMS = (
    Arm(
        "RandAugment, random erasing",
        AugmentConfig(policy="randaugment", random_erasing=0.25),
        (v2.RandAugment(interpolation=_BILINEAR),),
        (v2.RandomErasing(0.25),),
    ),
    Arm(
        "TrivialAugment",
        AugmentConfig(policy="trivialaugment"),
        (v2.TrivialAugmentWide(interpolation=_BILINEAR),),
    ),
    Arm(
        "rotation, colour jitter",
        AugmentConfig(rotation=15, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
        (v2.RandomRotation(15, interpolation=_BILINEAR), v2.ColorJitter(0.4, 0.4, 0.4, 0.1)),
    ),
)


def measure() -> Report:
    """Images a second of both, in turns."""
    setting = {"batch": BATCH, "workers": WORKERS, "rounds": ROUNDS, "threads": torch.get_num_threads()}
    root = cifar100()
    keep_freed_memory()  # as every training does
    with tempfile.TemporaryDirectory() as cache:
        data = load_data(DataConfig(source="imagefolder", path=str(root), cache_dir=cache, mean=MEAN, std=STD), seed=0)
    figures: list[Figure] = []
    raw: dict[str, list[float]] = {}
    for arm in ARMS:
        measured = _measure(arm, data, root)
        for what, theirs, ours in (
            ("times the images a second of torchvision with 2 workers", measured.seconds, measured.our_seconds),
            ("torchvision's processor time over ours", measured.processor, measured.our_processor),
        ):
            ratios = [other / mine for other, mine in zip(theirs, ours, strict=True)]
            figures.append(Figure.over(f"{arm.name}: {what}", ratios, better="higher", must=10, aim=20))
        raw |= {f"{arm.name}, {name}": values for name, values in vars(measured).items()}
    return Report(benchmark="augmented_path", figures=tuple(figures), setting=setting, raw=raw)


@dataclass(frozen=True)
class Measured:
    """Seconds and processor seconds that an image takes torchvision and us, by round."""

    seconds: list[float]
    our_seconds: list[float]
    processor: list[float]
    our_processor: list[float]


def _measure(arm: Arm, data: DataSplits, root: Path) -> Measured:
    batches = TrainBatches(
        data.train,
        data.normalisation,
        StepPlan(images=len(data.train), batch_size=BATCH, seed=0),
        crop_padding=PADDING,
        horizontal_flip=True,
        augmenter=Augmenter(arm.ours, (), classes=len(data.classes), seed=0),
    )
    loader = torchvision_loader(root, arm.between, arm.after)
    measured = Measured([], [], [], [])
    for epoch in range(1, ROUNDS + 1):
        started = time.process_time()
        ours = images_a_second((batch.images for batch in batches.epoch(epoch)), OUR_BATCHES)
        taken = time.process_time() - started
        measured.our_seconds.append(1 / ours)
        measured.our_processor.append(taken / ((WARM_UP_BATCHES + OUR_BATCHES) * BATCH))
        measured.seconds.append(1 / images_a_second((images for images, _ in loader), THEIR_BATCHES))
        started = time.process_time()
        for index in range(THEIR_IMAGES):
            loader.dataset[index * 37 % len(data.train)]
        measured.processor.append((time.process_time() - started) / THEIR_IMAGES)
    return measured
