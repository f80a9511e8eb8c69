"""Random crop and mirror of whole batches of uint8 pixels: one copy an image on the CPU, one gather elsewhere."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ecd_deploy.data.draws import Purpose, draw_below, stream_key


def crop_and_mirror(
    images: Tensor, draws: Tensor, *, seed: int, epoch: int, crop_padding: int, horizontal_flip: bool
) -> Tensor:
    """Pad with zeros, crop at a random place to the original size, and mirror half of the images.

    Padding is made of pixels of value 0, black, before any normalisation.

    Args:
        images: uint8, (n, C, H, W).
        draws: int64, (n,), of each image, such as its index in the training split: what is drawn depends on it.
        seed: of the run.
        epoch: counted from 1.
        crop_padding: pixels on each side; 0 leaves the images in place.
        horizontal_flip: whether to mirror.

    Returns:
        uint8, (n, C, H, W).
    """
    if not crop_padding and not horizontal_flip:
        return images
    height, width = images.shape[2:]
    padded = functional.pad(images, (crop_padding,) * 4)
    places = 2 * crop_padding + 1
    limits = {Purpose.CROP_TOP: places, Purpose.CROP_LEFT: places, Purpose.FLIP: 2 if horizontal_flip else 1}
    streams = [(stream_key(seed, epoch, purpose), limit) for purpose, limit in limits.items()]
    if images.device.type == "cpu":
        counters = draws.numpy()
        tops, lefts, mirrored = (draw_below(key, counters, limit).tolist() for key, limit in streams)
        return torch.from_numpy(_copied(padded.numpy(), tops, lefts, mirrored, height, width))
    return gathered(padded, *(draw_below(key, draws, limit) for key, limit in streams), height=height, width=width)


def gathered(padded: Tensor, tops: Tensor, lefts: Tensor, mirrored: Tensor, *, height: int, width: int) -> Tensor:
    """Crop and mirror with few operations, whatever the number of images, as an accelerator needs it.

    Args:
        padded: uint8, (n, C, H + 2 padding, W + 2 padding).
        tops: int64, (n,), first row of each crop.
        lefts: int64, (n,), first column of each crop.
        mirrored: int64, (n,), 1 where the crop is mirrored, else 0.
        height: of the crops.
        width: of the crops.
    """
    count, channels, _, padded_width = padded.shape
    rows = torch.arange(height, device=padded.device) + tops[:, None]
    columns = torch.arange(width, device=padded.device).expand(count, width)
    columns = torch.where(mirrored[:, None].bool(), width - 1 - columns, columns) + lefts[:, None]
    pixels = (rows[:, :, None] * padded_width + columns[:, None, :]).view(count, 1, height * width)
    crops = padded.flatten(2).gather(2, pixels.expand(count, channels, height * width))
    return crops.view(count, channels, height, width)


def _copied(
    padded: NDArray[np.uint8], tops: list[int], lefts: list[int], mirrored: list[int], height: int, width: int
) -> NDArray[np.uint8]:
    crops = np.empty((*padded.shape[:2], height, width), np.uint8)
    for image, crop, top, left, is_mirrored in zip(padded, crops, tops, lefts, mirrored, strict=True):
        part = image[:, top : top + height, left : left + width]
        crop[...] = part[:, :, ::-1] if is_mirrored else part
    return crops
