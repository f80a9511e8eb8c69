"""Factories of transforms as users write them, sound and not."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2


def noisy() -> Callable[[Tensor], Tensor]:
    return _noise


def _noise(image: Tensor) -> Tensor:
    noise = int(torch.randint(9, ())) + random.randrange(9) + int(np.random.randint(9))  # noqa: NPY002
    return image.clamp(max=200) + noise


def inverting() -> v2.Transform:
    return v2.Compose([v2.RandomHorizontalFlip(), v2.RandomInvert(0.5)])


def floating() -> v2.Transform:
    return v2.ToDtype(torch.float32, scale=True)


def failing() -> object:
    return lambda image: image[7]


def nothing() -> None:
    return None


def broken() -> object:
    raise ValueError("no such file: masks.npz")
