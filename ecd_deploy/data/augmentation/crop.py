"""Random crop and mirror of whole batches of uint8 pixels: a copy an image on the CPU, one gather elsewhere."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ecd_deploy.data.draws import Purpose, draw_below, stream_key


def crop_and_mirror(
    images: Tensor, indices: Tensor, draws: Tensor, *, seed: int, epoch: int, crop_padding: int, horizontal_flip: bool
) -> Tensor:
    """Take images, pad with zeros, crop at a random place to the original size, and mirror half of them.

    Padding is made of pixels of value 0, black, before any normalisation.

    Args:
        images: uint8, (N, C, H, W).
        indices: int64, (n,), which of them.
        draws: int64, (n,), of each image taken, such as its index: what is drawn depends on it.
        seed: of the run.
        epoch: counted from 1.
        crop_padding: pixels on each side; 0 leaves the images in place.
        horizontal_flip: whether to mirror.

    Returns:
        uint8, (n, C, H, W).
    """
    if not crop_padding and not horizontal_flip:
        return images.index_select(0, indices)
    places = 2 * crop_padding + 1
    limits = {Purpose.CROP_TOP: places, Purpose.CROP_LEFT: places, Purpose.FLIP: 2 if horizontal_flip else 1}
    streams = [(stream_key(seed, epoch, purpose), limit) for purpose, limit in limits.items()]
    if images.device.type == "cpu":
        counters = draws.numpy()
        tops, lefts, mirrored = (draw_below(key, counters, limit) for key, limit in streams)
        crops = _copied(images.numpy(), indices.numpy(), tops - crop_padding, lefts - crop_padding, mirrored)
        return torch.from_numpy(crops)
    padded = functional.pad(images.index_select(0, indices), (crop_padding,) * 4)
    height, width = images.shape[2:]
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
    images: NDArray[np.uint8],
    indices: NDArray[np.int64],
    downs: NDArray[np.int64],
    rights: NDArray[np.int64],
    mirrored: NDArray[np.int64],
) -> NDArray[np.uint8]:
    """Crop and mirror without a padded copy: zeros, and on them the part of each image that its crop shows.

    `downs` and `rights` are how far a crop's first row and column lie from the image's, negative in the padding.
    """
    height, width = images.shape[2:]
    downs, rights = downs.clip(-height, height), rights.clip(-width, width)  # beyond, there is padding alone
    crops = np.zeros((len(indices), *images.shape[1:]), np.uint8)
    parts = (indices, downs, np.maximum(downs, 0), rights, np.maximum(rights, 0), mirrored)
    for crop, image, down, top, right, left, is_mirrored in zip(crops, *(part.tolist() for part in parts), strict=True):
        seen = crop[:, :, ::-1] if is_mirrored else crop
        seen[:, top - down : height - top, left - right : width - left] = images[
            image, :, top : height + down - top, left : width + right - left
        ]
    return crops
