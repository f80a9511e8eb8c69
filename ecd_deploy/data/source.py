"""The contract between a source of images and `load_data`."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ecd_deploy.data.images import ImageSet


class Source(Protocol):
    """Images whose labels are known before any pixel is decoded.

    Attributes:
        classes: names, in the order of the labels.
        train_labels: int64, (N,).
        test_labels: int64, (M,).
    """

    classes: tuple[str, ...]
    train_labels: Tensor
    test_labels: Tensor

    def read(self, train: Tensor, test: Tensor) -> tuple[ImageSet, ImageSet]:
        """Decode the training and test images at these indices, all of one shape.

        Raises:
            DataError: an image cannot be used; all offenders are named.
        """
