"""Mean and standard deviation of the training images: given, or measured exactly."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.data.images import Normalisation
from ecd_deploy.errors import DataError, RecipeError
from ecd_deploy.recipe.data import DataConfig

_BLOCK_IMAGES = 1024


def choose_normalisation(config: DataConfig, images: NDArray[np.uint8]) -> Normalisation:
    """Take the recipe's normalisation if it has one, or measure it.

    Args:
        config: the recipe's data section.
        images: the training images, uint8, (N, C, H, W).

    Raises:
        RecipeError: the recipe gives another number of values than the images have channels.
        DataError: see `measure_normalisation`.
    """
    if config.mean is None or config.std is None:
        return measure_normalisation(images)
    channels = images.shape[1]
    for key, values in (("mean", config.mean), ("std", config.std)):
        if len(values) != channels:
            raise RecipeError(f"data.{key}: {len(values)} values are given, but the images have {channels} channel(s)")
    return Normalisation(config.mean, config.std)


def measure_normalisation(images: NDArray[np.uint8]) -> Normalisation:
    """Measure each channel's mean and population standard deviation over all pixels.

    Sums are taken over the histogram of the 256 values in integers, so the result does not depend
    on the order of the images.

    Raises:
        DataError: a channel has one value only.
    """
    moments = [_moments(images[:, channel]) for channel in range(images.shape[1])]
    for channel, (_, std) in enumerate(moments):
        if std == 0:
            raise DataError(
                f"every pixel of channel {channel} has the same value: nothing can be learnt from it; "
                "if that is meant, set data.mean and data.std"
            )
    return Normalisation(tuple(mean for mean, _ in moments), tuple(std for _, std in moments))


def _moments(channel: NDArray[np.uint8]) -> tuple[float, float]:
    histogram = _histogram(channel)
    total = sum(histogram)
    first = sum(value * count for value, count in enumerate(histogram))
    second = sum(value * value * count for value, count in enumerate(histogram))
    variance = (total * second - first * first) / (total * total)
    return first / total / 255, math.sqrt(variance) / 255


def _histogram(channel: NDArray[np.uint8]) -> list[int]:
    counts = np.zeros(256, dtype=np.int64)
    # by blocks: bincount turns its input into int64, eight times the size
    for start in range(0, len(channel), _BLOCK_IMAGES):
        counts += np.bincount(channel[start : start + _BLOCK_IMAGES].reshape(-1), minlength=256)
    return [int(count) for count in counts]
