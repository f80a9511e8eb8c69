"""Batches of normalised images; the order and the augmentation are functions of (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from ecd_deploy.data.augmentation.crop import crop_and_mirror
from ecd_deploy.data.batch import Batch
from ecd_deploy.data.images import ImageSet, Normalisation
from ecd_deploy.data.plan import Share, StepPlan
from ecd_deploy.data.tensors import ImageTensors, normalise, sent

if TYPE_CHECKING:
    from ecd_deploy.data.augmentation.augmenter import Augmenter

AUGMENTED_BYTES = 256 * 2**20
"""Bound of the memory that an accelerator augments images in at one time (those of one step at least)."""

_AUGMENTER_BYTES = 32 * 2**20  # likewise on a CPU, where an augmenter has few images of each operation in a step

_INDEX_BYTES = 24  # a pixel, for the places that `crop_and_mirror` gathers from: three int64


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
    """`Batches` of images in memory: each process makes its share of each step.

    Args:
        images: the training split.
        normalisation: applied after augmentation.
        plan: which of the images each step takes, and this process of it.
        crop_padding: pixels of zero padding before a random crop; 0 disables it.
        horizontal_flip: mirror with probability one half.
        augmenter: what else the images go through, if anything.
        device: where the images are kept and augmented.
        augmented_bytes: bound of the memory to augment the images of several steps in at once. By default a CPU
            crops and mirrors step by step; an accelerator, for which the number of operations counts and not their
            size, takes `AUGMENTED_BYTES`. The images are the same.
    """

    def __init__(
        self,
        images: ImageSet,
        normalisation: Normalisation,
        plan: StepPlan,
        *,
        crop_padding: int,
        horizontal_flip: bool,
        augmenter: Augmenter | None = None,
        device: torch.device | None = None,
        augmented_bytes: int | None = None,
    ) -> None:
        whole = ImageTensors.of(images, device)
        self._images, self._labels = whole.images, whole.labels
        self._normalisation = normalisation
        self._plan = plan
        self._crop_padding = crop_padding
        self._horizontal_flip = horizontal_flip
        self._augmenter = augmenter
        if augmented_bytes is None:
            on_cpu = 0 if augmenter is None else _AUGMENTER_BYTES
            augmented_bytes = on_cpu if self._images.device.type == "cpu" else AUGMENTED_BYTES
        image_bytes = self._images[0].numel() + _INDEX_BYTES * self._images[0, 0].numel()
        self._steps_at_once = max(1, augmented_bytes // (image_bytes * plan.batch_size))

    def __len__(self) -> int:
        return len(self._plan)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the epoch's steps, from the one numbered `first_step` (from 0) on; epochs count from 1."""
        device = self._labels.device
        # the augmenter draws on the host, which would wait for indices on an accelerator
        shares = self._plan.shares(epoch, first_step, device if self._augmenter is None else None)
        while steps := list(islice(shares, self._steps_at_once)):
            for share, pixels in zip(steps, self._augmented(epoch, steps), strict=True):
                indices = self._here(share.indices)
                batch = Batch(normalise(pixels, self._normalisation), self._labels[indices], indices, share.step_images)
                yield batch if self._augmenter is None else self._augmenter.finish(batch, share.draws.numpy(), epoch)

    def close(self) -> None:
        """Nothing works in the background."""

    def _augmented(self, epoch: int, steps: list[Share]) -> tuple[Tensor, ...]:
        """The images of some steps."""
        draws = _joined([share.draws for share in steps])
        images = crop_and_mirror(
            self._images,
            self._here(_joined([share.indices for share in steps])),
            self._here(draws),
            seed=self._plan.seed,
            epoch=epoch,
            crop_padding=self._crop_padding,
            horizontal_flip=self._horizontal_flip,
        )
        if self._augmenter is not None:
            images = self._augmenter.change(images, draws.numpy(), epoch)
        return torch.split(images, [len(share.indices) for share in steps])

    def _here(self, values: Tensor) -> Tensor:
        """Numbers of the plan where the images are."""
        return values if self._augmenter is None else sent(values, self._labels.device)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def eval_batches(
    images: ImageTensors,
    normalisation: Normalisation,
    batch_size: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
    device: torch.device | None = None,
) -> Iterator[Batch]:
    """Yield every image once, in order, without augmentation; with several processes, this one's share."""
    own = torch.arange(len(images)).tensor_split(process_count)[process_index]
    for part in torch.split(own, batch_size) if len(own) else ():
        # a slice: indices would have to be copied to where an accelerator holds the images
        start, stop = int(part[0]), int(part[-1]) + 1
        labels = images.labels[start:stop].to(device)
        pixels = normalise(images.images[start:stop], normalisation, device)
        yield Batch(pixels, labels, torch.arange(start, stop, device=device), len(labels))
