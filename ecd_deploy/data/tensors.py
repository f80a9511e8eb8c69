"""Images as tensors, for what is trained: they share the arrays' memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ecd_deploy.data.images import ImageSet, Normalisation


@dataclass(frozen=True)
class ImageTensors:
    """The images uint8 (N, C, H, W) and labels int64 (N,) of an `ImageSet`, on one device."""

    images: Tensor
    labels: Tensor

    @classmethod
    def of(cls, images: ImageSet, device: torch.device | None = None) -> ImageTensors:
        """Take an image set; on the CPU nothing is copied."""
        return cls(torch.from_numpy(images.images).to(device), torch.from_numpy(images.labels).to(device))

    def __len__(self) -> int:
        return len(self.labels)


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the host to a device, which the host does not wait for."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def normalise(images: Tensor, normalisation: Normalisation, device: torch.device | None = None) -> Tensor:
    """Do on a device what `Normalisation.apply` does; on the CPU to the same bits."""
    pixels = images.to(device).to(torch.float32)
    mean, std = (_by_channel(values, pixels.device) for values in (normalisation.mean, normalisation.std))
    return pixels.div_(255).sub_(mean).div_(std)


@lru_cache(maxsize=16)
def _by_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Values as (1, C, 1, 1); kept, since each copy to an accelerator makes the host wait for it."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)
