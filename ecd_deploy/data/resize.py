"""Resizing of the shorter side, then a centre crop."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def resize_and_crop(image: Image.Image, side: int) -> Image.Image:
    """Scale the shorter side to `side` pixels (bilinear, antialiased) and cut the middle square out."""
    width, height = image.size
    size = (side, side * height // width) if width <= height else (side * width // height, side)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    return image.crop((left, top, left + side, top + side))


def resize_all(images: Tensor, side: int) -> Tensor:
    """Apply `resize_and_crop` to uint8 images (N, C, H, W) that are not of that size yet."""
    if images.shape[2:] == (side, side):
        return images
    pixels = images.permute(0, 2, 3, 1).numpy()
    if pixels.shape[3] == 1:
        pixels = pixels[..., 0]
    resized = np.stack([np.asarray(resize_and_crop(Image.fromarray(image), side)) for image in pixels])
    return torch.from_numpy(resized.reshape(len(images), side, side, -1)).permute(0, 3, 1, 2).contiguous()
