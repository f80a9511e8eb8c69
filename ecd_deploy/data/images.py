"""What the data layer hands on: uint8 images in memory, with their labels and normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ecd_deploy.errors import DataError


@dataclass(frozen=True)
class ImageSet:
    """Images of one shape and their labels.

    Attributes:
        images: uint8, (N, C, H, W), in 0..255.
        labels: int64, (N,), in [0, classes).

    Raises:
        DataError: a tensor has another type or shape.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise DataError(
                f"images must be uint8 of shape (N, C, H, W), not {self.images.dtype} of {tuple(self.images.shape)}"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"labels must be int64 of shape ({len(self.images)},), not {self.labels.dtype} of "
                f"{tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Tensor) -> ImageSet:
        """Return the images at `indices`, int64 (n,), copied."""
        return ImageSet(self.images[indices], self.labels[indices])

    def to(self, device: torch.device) -> ImageSet:
        """Return the same images on a device."""
        return ImageSet(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class ImageFiles:
    """Image files that are decoded when they are needed, and their labels.

    Attributes:
        root: the folder that all of them are below.
        paths: of the files.
        labels: int64, (N,), in [0, classes).
        channels: that they are decoded to, 1 or 3.
    """

    root: Path
    paths: tuple[Path, ...]
    labels: Tensor
    channels: int

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, indices: Tensor) -> ImageFiles:
        """Return the files at `indices`, int64 (n,)."""
        paths = tuple(self.paths[index] for index in indices.tolist())
        return ImageFiles(self.root, paths, self.labels[indices], self.channels)


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel, in units of 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, images: Tensor, device: torch.device | None = None) -> Tensor:
        """Turn uint8 images (N, C, H, W) into float32 ones: (pixel / 255 - mean) / std."""
        pixels = images.to(device).to(torch.float32)
        mean, std = (_by_channel(values, pixels.device) for values in (self.mean, self.std))
        return pixels.div_(255).sub_(mean).div_(std)


@lru_cache(maxsize=16)
def _by_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Values as (1, C, 1, 1); kept, since each copy to an accelerator makes the host wait for it."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)


@dataclass(frozen=True)
class DataSplits:
    """The images of a run: trained on, selected on, and reported on.

    Attributes:
        train: what is trained on; where `train_files` are, a sample of them at the images' size, for calibration.
        validation: None if every training image is trained on.
        classes: names, in the order of the labels.
        digest: SHA-256 over the images, labels and classes of all splits, and over the training files.
        train_files: what is trained on instead of `train`, decoded anew each epoch.
        overlapping_test_images: test images whose pixels are those of a training or validation image too.
    """

    train: ImageSet
    validation: ImageSet | None
    test: ImageSet
    classes: tuple[str, ...]
    normalisation: Normalisation
    digest: str
    train_files: ImageFiles | None = None
    overlapping_test_images: int = 0

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def in_channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return self.input_shape[0]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.input_shape[1:]
