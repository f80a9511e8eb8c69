"""The contract between a source of images and `load_data`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.data.images import ImageSet


@dataclass(frozen=True)
class NamedImages:
    """Images, the name of each for messages, and what else is known of each, by the name of that property."""

    images: ImageSet
    names: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceImages:
    """What a source has, all of one shape; validation is None if it has none of its own."""

    train: NamedImages
    validation: NamedImages | None
    test: NamedImages


class Source(Protocol):
    """Images whose labels are known before any pixel is decoded.

    Attributes:
        classes: names, in the order of the labels.
        train_labels: int64, (N,).
        test_labels: int64, (M,).
        has_validation: whether it has validation images of its own.
    """

    classes: tuple[str, ...]
    train_labels: NDArray[np.int64]
    test_labels: NDArray[np.int64]
    has_validation: bool

    def read(self, train: NDArray[np.int64], test: NDArray[np.int64]) -> SourceImages:
        """Decode the training and test images at these indices, and all validation images.

        Raises:
            DataError: an image cannot be used; all offenders are named.
        """
