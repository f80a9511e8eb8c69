"""Random erasing: a random rectangle of an image is set to the mean colour.

Zhong et al. (2017), <https://arxiv.org/abs/1708.04896>, with torchvision's ranges and attempts.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ecd_deploy.data.augmentation.boxes import Boxes
from ecd_deploy.data.draws import Purpose, draw_fraction, stream_key

LEAST_AREA, LARGEST_AREA = 0.02, 0.33
LEAST_ASPECT, LARGEST_ASPECT = 0.3, 3.3
_ATTEMPTS = 10
_DRAWS = 4  # of an attempt: area, aspect, top, left


def draw_erased(probability: float, size: tuple[int, int], draws: NDArray[np.int64], *, seed: int, epoch: int) -> Boxes:
    """Draw what is erased of each image, nothing of most if the probability is low.

    Args:
        probability: that something is.
        size: height and width of the images.
        draws: int64, (n,), of each image, such as its index in the training split: what is drawn depends on it.
        seed: of the run.
        epoch: counted from 1.
    """
    height, width = size
    chosen = draw_fraction(stream_key(seed, epoch, Purpose.ERASING, 0), draws) < probability
    each = _ATTEMPTS * _DRAWS
    counters = draws[:, None] * each + np.arange(each)
    drawn = draw_fraction(stream_key(seed, epoch, Purpose.ERASING, 1), counters).reshape(-1, _ATTEMPTS, _DRAWS)
    area, aspect, top, left = np.moveaxis(drawn, 2, 0)
    area = (LEAST_AREA + (LARGEST_AREA - LEAST_AREA) * area) * height * width
    low, high = math.log(LEAST_ASPECT), math.log(LARGEST_ASPECT)
    aspect = np.exp(low + (high - low) * aspect)
    heights, widths = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (heights < height) & (widths < width)
    first = fits.argmax(axis=1)[:, None]
    heights, widths, top, left = (
        np.take_along_axis(values, first, axis=1)[:, 0] for values in (heights, widths, top, left)
    )
    heights[~(chosen & fits.any(axis=1))] = 0
    top = np.floor(top * (height - heights + 1))
    left = np.floor(left * (width - widths + 1))
    return Boxes(top, top + heights, left, left + widths)


def erase(images: Tensor, boxes: Boxes) -> Tensor:
    """Set normalised images (n, C, H, W) to 0, the mean colour, within each one's box; in place."""
    return images.masked_fill_(boxes.mask(images), 0.0)
