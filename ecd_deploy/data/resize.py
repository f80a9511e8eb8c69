"""Resizing of the shorter side, then a centre crop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Framing:
    """How images of any size become squares of one.

    Attributes:
        side: of the square, in pixels.
        shorter_side: what the shorter side of an image is scaled to before, in pixels; `side` or more.
    """

    side: int
    shorter_side: int

    @classmethod
    def of(cls, image_size: int | None, resize: int | None = None) -> Framing | None:
        """What the recipe's keys of these names ask for; None if images stay as they are."""
        return None if image_size is None else cls(image_size, image_size if resize is None else resize)

    @property
    def key(self) -> str:
        """For a cache's names, in which `side` alone stands for a `shorter_side` that equals it."""
        return str(self.side) if self.shorter_side == self.side else f"{self.side} of {self.shorter_side}"

    def apply(self, image: Image.Image) -> Image.Image:
        """Scale the shorter side (bilinear, antialiased) and cut the middle square out."""
        width, height = image.size
        side, shorter = self.side, self.shorter_side
        size = (shorter, shorter * height // width) if width <= height else (shorter * width // height, shorter)
        if size != image.size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
        return image.crop((left, top, left + side, top + side))

    def apply_all(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Apply it to uint8 images (N, C, H, W); (N, C, side, side)."""
        if images.shape[2:] == (self.side, self.side) and self.shorter_side == self.side:
            return images
        pixels = images.transpose(0, 2, 3, 1)
        if pixels.shape[3] == 1:
            pixels = pixels[..., 0]
        framed = np.stack([np.asarray(self.apply(Image.fromarray(image))) for image in pixels])
        return np.ascontiguousarray(framed.reshape(len(images), self.side, self.side, -1).transpose(0, 3, 1, 2))
