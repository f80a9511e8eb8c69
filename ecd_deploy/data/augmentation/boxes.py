"""A rectangle of each image of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecd_deploy.data.tensors import sent


@dataclass(frozen=True)
class Boxes:
    """Rows from `top` and columns from `left` up to, without, `bottom` and `right`: whole numbers, (n,) each."""

    top: NDArray[np.float64]
    bottom: NDArray[np.float64]
    left: NDArray[np.float64]
    right: NDArray[np.float64]

    def area(self) -> NDArray[np.float64]:
        """Pixels of each, (n,)."""
        return (self.bottom - self.top) * (self.right - self.left)

    def mask(self, images: Tensor) -> Tensor:
        """Where each lies in images (n, C, H, W): bool, (n, 1, H, W)."""
        sides = np.stack((self.top, self.bottom, self.left, self.right)).astype(np.int64)
        top, bottom, left, right = sent(torch.from_numpy(sides), images.device).view(4, -1, 1, 1, 1)
        height, width = images.shape[2:]
        rows = torch.arange(height, device=images.device).view(1, 1, height, 1)
        columns = torch.arange(width, device=images.device)
        inside: Tensor = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
        return inside
