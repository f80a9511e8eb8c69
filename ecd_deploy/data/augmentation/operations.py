"""What torchvision's RandAugment and ColorJitter do to an image, on whole batches with a strength for each image.

The transforms of `torchvision.transforms.v2` draw once for a batch, and its functions take one strength for all of it.
Here every image has its own: the images of one operation are changed together, by torchvision's function where it
needs no strength, and else by the same formula with a strength a row. Pixels are whole numbers in float32 between two
operations, and masks are multiplied with, which a CPU does several times as fast as it converts and chooses.

An image's pixels do not depend on the other images of the batch: no fractions are added up over pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from ecd_deploy.data.tensors import sent

Strengths = NDArray[np.float64]

GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
"""Operations that move pixels."""

_MOVED = ""  # the group of all geometric operations
_WHITE = 255.0
_TURN = 6.0  # of the colour circle, in sectors
_BLUR_WEIGHTS, _BLUR_CENTRE = 13, 5  # 3x3: Pillow's SMOOTH
_LEAST_SHARPENED = 3  # pixels a side


def apply_operations(images: Tensor, names: NDArray[np.str_], strengths: Strengths) -> Tensor:
    """Change each image by its own operation.

    Args:
        images: float32, (n, C, H, W), of 1 or 3 channels, whole numbers from 0 to 255.
        names: (n,), torchvision's names of RandAugment's operations, or "Hue".
        strengths: float64, (n,), as RandAugment gives them: shears as tangents, translations in pixels, rotations in
            degrees, factors less 1, bits that are kept, thresholds as shares of white; of "Hue" the shift in turns.

    Returns:
        The same type and shape; what comes from outside an image is black.
    """
    groups = np.where(np.isin(names, GEOMETRIC), _MOVED, names)
    order = groups.argsort(kind="stable")
    starts = np.flatnonzero(groups[order][1:] != groups[order][:-1]) + 1
    if not len(starts):
        return _change(images, groups[0], names, strengths)
    changed = [
        _change(
            images.index_select(0, sent(torch.from_numpy(rows), images.device)),
            groups[rows[0]],
            names[rows],
            strengths[rows],
        )
        for rows in np.split(order, starts)
    ]
    return torch.cat(changed).index_select(0, sent(torch.from_numpy(order.argsort()), images.device))


def _change(images: Tensor, group: str, names: NDArray[np.str_], strengths: Strengths) -> Tensor:
    return _warp(images, names, strengths) if group == _MOVED else _BY_NAME[group](images, strengths)


def as_bytes(images: Tensor) -> Tensor:
    """Whole numbers as uint8; by way of int16, which is several times as fast."""
    return images.to(torch.int16).to(torch.uint8)


def _warp(images: Tensor, names: NDArray[np.str_], strengths: Strengths) -> Tensor:
    """Fetch each pixel (bilinear) from where the inverse of the image's map leads, coordinates from the centre."""
    height, width = images.shape[2:]
    turned = np.where(names == "Rotate", np.deg2rad(strengths), 0.0)
    shear_x, shear_y, move_x, move_y = (
        np.where(names == name, strengths, 0.0) for name in ("ShearX", "ShearY", "TranslateX", "TranslateY")
    )
    x, y = np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2
    # shears leave the top left corner where it is; translations are of whole pixels
    left, top = shear_x * height / 2 - np.trunc(move_x), shear_y * width / 2 - np.trunc(move_y)
    # a point is x + iy, in halves of the image's sides; so the sums of both coordinates are one, and lie side by side
    across = np.outer(np.cos(turned) / width + 1j * (shear_y + np.sin(turned)) / height, 2 * x)
    down = np.outer((shear_x - np.sin(turned)) / width + 1j * np.cos(turned) / height, 2 * y)
    down += (2 * left / width + 2j * top / height)[:, None]
    of_x, of_y = (sent(torch.from_numpy(part).to(torch.complex64), images.device) for part in (across, down))
    grid = torch.view_as_real(of_x[:, None, :] + of_y[:, :, None])
    return F.grid_sample(images, grid, align_corners=False).round_()


def _brightness(images: Tensor, strengths: Strengths) -> Tensor:
    return _bounded(images * _each(1.0 + strengths, images))


def _saturation(images: Tensor, strengths: Strengths) -> Tensor:
    if images.shape[1] == 1:
        return images
    return _bounded((images * _each(1.0 + strengths, images)).sub_(_grey(images) * _each(strengths, images)))


def _contrast(images: Tensor, strengths: Strengths) -> Tensor:
    grey = _grey(images).flatten(1)
    # whole numbers: the same in any order of adding
    mean = grey.sum(dim=1, dtype=torch.float64).div_(grey.shape[1]).float().view(-1, 1, 1, 1)
    return _bounded((images * _each(1.0 + strengths, images)).sub_(mean * _each(strengths, images)))


def _sharpness(images: Tensor, strengths: Strengths) -> Tensor:
    if min(images.shape[2:]) < _LEAST_SHARPENED:
        return images
    rows = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    blurred = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inner = images[:, :, 1:-1, 1:-1]
    blurred.add_(inner, alpha=_BLUR_CENTRE - 1).div_(_BLUR_WEIGHTS).round_()
    changed = images.clone()
    changed[:, :, 1:-1, 1:-1] += (inner - blurred).mul_(_each(strengths, images))
    return _bounded(changed)


def _posterize(images: Tensor, strengths: Strengths) -> Tensor:
    steps = _each(2.0 ** (8 - strengths), images)
    return (images / steps).floor_().mul_(steps)


def _solarize(images: Tensor, strengths: Strengths) -> Tensor:
    is_light = (images - _each(_WHITE * strengths, images)).ge_(0)
    return torch.addcmul(images, is_light, _WHITE - 2 * images)


def _autocontrast(images: Tensor, _: Strengths) -> Tensor:
    changed: Tensor = vision.autocontrast(as_bytes(images))
    return changed.float()


def _equalize(images: Tensor, _: Strengths) -> Tensor:
    changed: Tensor = vision.equalize(as_bytes(images))
    return changed.float()


def _hue(images: Tensor, strengths: Strengths) -> Tensor:
    """Turn the colour circle, with value and chroma as they are."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(dim=1)
    value, least = images.amax(dim=1), images.amin(dim=1)
    chroma = value - least
    is_red = (red - value).ge_(0)
    is_green = (green - value).ge_(0).mul_(1 - is_red)
    is_blue = 1 - is_red - is_green
    hue = (green - blue).mul_(is_red).addcmul_(blue - red, is_green).addcmul_(red - green, is_blue)
    hue.div_(chroma.clamp(min=1)).add_(is_green, alpha=2).add_(is_blue, alpha=4)
    hue += _each(_TURN * strengths, images)[:, 0]
    hue.sub_((hue / _TURN).floor_(), alpha=_TURN)
    changed = torch.stack(((hue - 3).abs_().sub_(1), 2 - (hue - 2).abs_(), 2 - (hue - 4).abs_()), dim=1)
    return changed.clamp_(0, 1).mul_(chroma[:, None]).add_(least[:, None]).round_()


def _grey(images: Tensor) -> Tensor:
    grey: Tensor = vision.rgb_to_grayscale(images)
    return grey.floor_()


def _bounded(images: Tensor) -> Tensor:
    return images.clamp_(0, _WHITE).floor_()


def _each(values: NDArray[np.float64], images: Tensor) -> Tensor:
    """A number for each image: (n, 1, 1, 1)."""
    return _rows(values, images).view(-1, 1, 1, 1)


def _rows(values: NDArray[np.floating], images: Tensor) -> Tensor:
    return sent(torch.from_numpy(values).float(), images.device)


_BY_NAME: dict[str, Callable[[Tensor, Strengths], Tensor]] = {
    "Identity": lambda images, _: images,
    "Brightness": _brightness,
    "Color": _saturation,
    "Contrast": _contrast,
    "Sharpness": _sharpness,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _autocontrast,
    "Equalize": _equalize,
    "Hue": _hue,
}
