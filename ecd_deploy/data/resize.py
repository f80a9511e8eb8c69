"""Scaling until a size is filled, then a centre crop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ecd_deploy.recipe.sides import both_sides


@dataclass(frozen=True)
class Framing:
    """How images of any size become images of one.

    Attributes:
        size: height and width of the middle that is cut out, in pixels.
        fill: height and width that an image is scaled to fill before, in pixels; `size` or more. In a square it is
            the shorter side that is brought to that size.
    """

    size: tuple[int, int]
    fill: tuple[int, int]

    @classmethod
    def of(cls, image_size: int | tuple[int, int], resize: int | tuple[int, int] | None = None) -> Framing:
        """What the recipe's keys of these names ask for."""
        return cls(both_sides(image_size), both_sides(resize or image_size))

    @property
    def key(self) -> str:
        """For a cache's names, in which `size` alone stands for a `fill` that equals it."""
        return _named(self.size) if self.fill == self.size else f"{_named(self.size)} of {_named(self.fill)}"

    def apply(self, image: Image.Image) -> Image.Image:
        """Scale (bilinear, antialiased) and cut the middle out."""
        width, height = image.size
        fill_height, fill_width = self.fill
        if fill_width * height >= fill_height * width:
            scaled = (fill_width, fill_width * height // width)
        else:
            scaled = (fill_height * width // height, fill_height)
        if scaled != image.size:
            image = image.resize(scaled, Image.Resampling.BILINEAR)
        left, top = round((scaled[0] - self.size[1]) / 2), round((scaled[1] - self.size[0]) / 2)
        return image.crop((left, top, left + self.size[1], top + self.size[0]))

    def apply_all(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Apply it to uint8 images (N, C, H, W); (N, C, *size)."""
        if images.shape[2:] == self.size == self.fill:
            return images
        pixels = images.transpose(0, 2, 3, 1)
        if pixels.shape[3] == 1:
            pixels = pixels[..., 0]
        framed = np.stack([np.asarray(self.apply(Image.fromarray(image))) for image in pixels])
        return np.ascontiguousarray(framed.reshape(len(images), *self.size, -1).transpose(0, 3, 1, 2))


def _named(sides: tuple[int, int]) -> str:
    height, width = sides
    return str(height) if height == width else f"{height}x{width}"
