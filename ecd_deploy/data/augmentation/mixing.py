"""mixup and CutMix: each image is mixed with the one before it in its step, and so are their labels.

Zhang et al. (2017), <https://arxiv.org/abs/1710.09412>; Yun et al. (2019), <https://arxiv.org/abs/1905.04899>. There,
and in torchvision, one share is drawn for a step; here each image has its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from numpy.typing import NDArray
from torch import Tensor

from ecd_deploy.compat.scipy import special
from ecd_deploy.data.augmentation.boxes import Boxes
from ecd_deploy.data.draws import Purpose, draw_fraction, stream_key
from ecd_deploy.data.tensors import sent


@dataclass(frozen=True)
class Mixing:
    """How each of n images is mixed with its partner.

    Attributes:
        shares: of the image's own label, float64, (n,).
        blends: of its own pixels outside the box, float64, (n,): 1 with CutMix.
        boxes: within which the pixels are the partner's; empty with mixup.
    """

    shares: NDArray[np.float64]
    blends: NDArray[np.float64]
    boxes: Boxes


def draw_mixing(
    mixup: float | None,
    cutmix: float | None,
    size: tuple[int, int],
    draws: NDArray[np.int64],
    *,
    seed: int,
    epoch: int,
) -> Mixing:
    """Draw how images are mixed.

    Args:
        mixup: parameter of its beta distribution; None if there is only CutMix.
        cutmix: likewise.
        size: height and width of the images.
        draws: int64, (n,), of each image, such as its index in the training split: what is drawn depends on it.
        seed: of the run.
        epoch: counted from 1.
    """
    height, width = size
    which, quantile, row, column = (
        draw_fraction(stream_key(seed, epoch, Purpose.MIXING, part), draws) for part in range(4)
    )
    is_cut = np.full(len(draws), mixup is None) if None in (mixup, cutmix) else which < 1 / 2
    parameters = np.where(is_cut, cutmix or 1.0, mixup or 1.0)
    shares = special.betaincinv(parameters, parameters, quantile)
    half = np.where(is_cut, np.sqrt(1 - shares) / 2, 0.0)
    middle_row, middle_column = np.floor(row * height), np.floor(column * width)
    half_height, half_width = np.trunc(half * height), np.trunc(half * width)
    boxes = Boxes(
        np.clip(middle_row - half_height, 0, height),
        np.clip(middle_row + half_height, 0, height),
        np.clip(middle_column - half_width, 0, width),
        np.clip(middle_column + half_width, 0, width),
    )
    return Mixing(np.where(is_cut, 1 - boxes.area() / (height * width), shares), np.where(is_cut, 1.0, shares), boxes)


def mix(images: Tensor, labels: Tensor, classes: int, mixing: Mixing) -> tuple[Tensor, Tensor]:
    """Mix each image with the one before it, the first with the last.

    Args:
        images: float32, (n, C, H, W).
        labels: int64, (n,).
        classes: there are.
        mixing: of these images.

    Returns:
        Images (n, C, H, W), and the shares of the classes in each, float32 (n, classes).
    """
    shares, blends = sent(torch.from_numpy(np.stack((mixing.shares, mixing.blends))).float(), images.device)
    weights = torch.where(mixing.boxes.mask(images), 0.0, blends.view(-1, 1, 1, 1))
    own = F.one_hot(labels, classes).to(torch.float32)
    # lerp gives the ends exactly: what is not blended keeps its bits
    return torch.lerp(images.roll(1, 0), images, weights), torch.lerp(own.roll(1, 0), own, shares[:, None])
