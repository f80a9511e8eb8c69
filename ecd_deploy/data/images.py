"""What the data layer hands on: uint8 images in memory, with their labels and normalisation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.errors import DataError

_NORMALISED_AT_ONCE = 64
"""Images; those of small batches are normalised together, which for one image takes longer than its pixels."""


@dataclass(frozen=True)
class ImageSet:
    """Images of one shape and their labels.

    Attributes:
        images: uint8, (N, C, H, W), in 0..255.
        labels: int64, (N,), in [0, classes).

    Raises:
        DataError: an array has another type or shape.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise DataError(
                f"images must be uint8 of shape (N, C, H, W), not {self.images.dtype} of {self.images.shape}"
            )
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"labels must be int64 of shape ({len(self.images)},), not {self.labels.dtype} of {self.labels.shape}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: NDArray[np.int64]) -> ImageSet:
        """Return the images at `indices`, int64 (n,), copied."""
        return ImageSet(self.images[indices], self.labels[indices])

    def first(self, count: int) -> ImageSet:
        """Return the first images, `count` at most, not copied."""
        return ImageSet(self.images[:count], self.labels[:count])


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
    labels: NDArray[np.int64]
    channels: int

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, indices: NDArray[np.int64]) -> ImageFiles:
        """Return the files at `indices`, int64 (n,)."""
        paths = tuple(self.paths[index] for index in indices.tolist())
        return ImageFiles(self.root, paths, self.labels[indices], self.channels)


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel, in units of 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn uint8 images (N, C, H, W) into float32 ones: (pixel / 255 - mean) / std, each step in float32."""
        mean, std = (np.array(values, dtype=np.float32).reshape(1, -1, 1, 1) for values in (self.mean, self.std))
        pixels = images.astype(np.float32)
        pixels /= np.float32(255)
        pixels -= mean
        pixels /= std
        return pixels

    def batches(self, images: ImageSet, size: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Yield every image once, in order, normalised (n, C, H, W), with the labels (n,)."""
        step = size * max(1, _NORMALISED_AT_ONCE // size)
        for first in range(0, len(images), step):
            pixels, labels = self.apply(images.images[first : first + step]), images.labels[first : first + step]
            for start in range(0, len(labels), size):
                yield pixels[start : start + size], labels[start : start + size]


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
        test_columns: what else is known of each test image, such as its camera, by the name of that property.
    """

    train: ImageSet
    validation: ImageSet | None
    test: ImageSet
    classes: tuple[str, ...]
    normalisation: Normalisation
    digest: str
    train_files: ImageFiles | None = None
    overlapping_test_images: int = 0
    test_columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def train_labels(self) -> NDArray[np.int64]:
        """Of all images that are trained on, (N,)."""
        return (self.train_files or self.train).labels

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
