"""Random resized crop: a part of random area and aspect, brought to one size.

Szegedy et al., "Going deeper with convolutions" (2014), section 6; with the limits on the aspect and
the attempts that torchvision has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ecd_deploy.data.draws import Purpose, draw_fraction, stream_key

LEAST_ASPECT, LARGEST_ASPECT = 3 / 4, 4 / 3
_ATTEMPTS = 10
_DRAWS = 4  # of an attempt: area, aspect, top, left


@dataclass(frozen=True)
class CropBox:
    """A part of an image, in pixels."""

    left: int
    top: int
    width: int
    height: int

    def cut(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Cut this part out and bring it to `size`, (height, width) (bilinear, antialiased)."""
        part = image.crop((self.left, self.top, self.left + self.width, self.top + self.height))
        return part.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def crop_draws(draws: NDArray[np.int64], *, seed: int, epoch: int) -> NDArray[np.float64]:
    """Draw what `choose_box` needs for images by their `draws`, int64 (n,): float64 (n, attempts, 4) in [0, 1)."""
    each = _ATTEMPTS * _DRAWS
    counters = draws[:, None] * each + np.arange(each)
    return draw_fraction(stream_key(seed, epoch, Purpose.RESIZED_CROP), counters).reshape(-1, _ATTEMPTS, _DRAWS)


def choose_box(size: tuple[int, int], area: tuple[float, float], draws: Sequence[Sequence[float]]) -> CropBox:
    """Choose a part of an image; if no attempt fits, the largest middle part of an aspect that is allowed.

    Args:
        size: of the image, (width, height).
        area: least and largest share of the image's area.
        draws: one image's, from `crop_draws`.
    """
    width, height = size
    for share_draw, aspect_draw, top_draw, left_draw in draws:
        pixels = width * height * (area[0] + (area[1] - area[0]) * share_draw)
        aspect = LEAST_ASPECT * (LARGEST_ASPECT / LEAST_ASPECT) ** aspect_draw
        box_width, box_height = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            left, top = int(left_draw * (width - box_width + 1)), int(top_draw * (height - box_height + 1))
            return CropBox(left, top, box_width, box_height)
    box_width = min(width, max(1, round(height * LARGEST_ASPECT)))
    box_height = min(height, max(1, round(width / LEAST_ASPECT)))
    return CropBox((width - box_width) // 2, (height - box_height) // 2, box_width, box_height)
