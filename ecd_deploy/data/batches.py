"""Batches of normalised images; the order and the augmentation are functions of (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ecd_deploy.data.augment import augment
from ecd_deploy.data.images import ImageSet, Normalisation
from ecd_deploy.data.plan import LEAST_SHARE, StepPlan


@dataclass(frozen=True)
class Batch:
    """Images of one step on this process.

    Attributes:
        images: float32, (n, C, H, W), normalised.
        labels: int64, (n,).
        indices: int64, (n,), positions in the split.
        step_images: images of the step over all processes.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    step_images: int

    def __len__(self) -> int:
        return len(self.labels)

    def split(self, parts: int) -> tuple[Batch, ...]:
        """Cut into at most `parts` batches of nearly equal size, none smaller than two images."""
        parts = max(1, min(parts, len(self) // LEAST_SHARE))
        pieces = zip(*(tensor.tensor_split(parts) for tensor in (self.images, self.labels, self.indices)), strict=True)
        return tuple(Batch(images, labels, indices, self.step_images) for images, labels, indices in pieces)


class Batches(Protocol):
    """The training split in steps, shuffled and augmented anew each epoch; one epoch at a time.

    A batch is a function of (seed, epoch, step) and the process: neither what was made before it nor
    what makes it matters.
    """

    def __len__(self) -> int:
        """Steps of an epoch."""

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the epoch's steps, from the one numbered `first_step` (from 0) on; epochs count from 1.

        Raises:
            DataError: an image cannot be had any more.
        """

    def close(self) -> None:
        """End what works in the background; no epoch is begun afterwards."""


class TrainBatches:
    """`Batches` of images in memory: each process makes its share of each step, as `StepPlan` says.

    Args:
        images: the training split.
        normalisation: applied after augmentation.
        batch_size: images of a step over all processes.
        seed: of the run.
        crop_padding: pixels of zero padding before a random crop; 0 disables it.
        horizontal_flip: mirror with probability one half.
        process_index: of this process.
        process_count: over which each step is spread.
        device: where the images are kept and augmented.

    Raises:
        DataError: there are too few images for a single step.
    """

    def __init__(
        self,
        images: ImageSet,
        normalisation: Normalisation,
        *,
        batch_size: int,
        seed: int,
        crop_padding: int,
        horizontal_flip: bool,
        process_index: int = 0,
        process_count: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self._images = images.images.to(device)
        self._labels = images.labels.to(device)
        self._normalisation = normalisation
        self._seed = seed
        self._crop_padding = crop_padding
        self._horizontal_flip = horizontal_flip
        self._plan = StepPlan(
            images=len(images),
            batch_size=batch_size,
            seed=seed,
            process_index=process_index,
            process_count=process_count,
        )

    def __len__(self) -> int:
        return len(self._plan)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the epoch's steps, from the one numbered `first_step` (from 0) on; epochs count from 1."""
        for indices, step_images in self._plan.shares(epoch, first_step, self._labels.device):
            yield self._batch(epoch, indices, step_images)

    def close(self) -> None:
        """Nothing works in the background."""

    def _batch(self, epoch: int, indices: Tensor, step_images: int) -> Batch:
        images = augment(
            self._images.index_select(0, indices),
            indices,
            seed=self._seed,
            epoch=epoch,
            crop_padding=self._crop_padding,
            horizontal_flip=self._horizontal_flip,
        )
        return Batch(self._normalisation.apply(images), self._labels[indices], indices, step_images)


def eval_batches(
    images: ImageSet,
    normalisation: Normalisation,
    batch_size: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
    device: torch.device | None = None,
) -> Iterator[Batch]:
    """Yield every image once, in order, without augmentation; with several processes, this one's share."""
    every = torch.arange(len(images)).tensor_split(process_count)[process_index]
    for start in range(0, len(every), batch_size):
        indices = every[start : start + batch_size]
        pixels, labels = images.images[indices], images.labels[indices].to(device)
        yield Batch(normalisation.apply(pixels, device), labels, indices.to(device), len(indices))
