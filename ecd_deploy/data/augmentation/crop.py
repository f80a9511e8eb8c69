"""Random crop and mirror of whole batches, as one gather on uint8 pixels."""

from __future__ import annotations

import torch
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
    count, channels, height, width = images.shape
    rows = torch.arange(height, device=images.device).expand(count, height)
    columns = torch.arange(width, device=images.device).expand(count, width)
    if horizontal_flip:
        is_mirrored = draw_below(stream_key(seed, epoch, Purpose.FLIP), draws, 2).bool()
        columns = torch.where(is_mirrored[:, None], width - 1 - columns, columns)
    if crop_padding:
        places = 2 * crop_padding + 1
        rows = rows + draw_below(stream_key(seed, epoch, Purpose.CROP_TOP), draws, places)[:, None]
        columns = columns + draw_below(stream_key(seed, epoch, Purpose.CROP_LEFT), draws, places)[:, None]
        images = functional.pad(images, (crop_padding,) * 4)
    padded_width = images.shape[3]
    pixels = (rows[:, :, None] * padded_width + columns[:, None, :]).view(count, 1, height * width)
    gathered = images.flatten(2).gather(2, pixels.expand(count, channels, height * width))
    return gathered.view(count, channels, height, width)
