"""The user's own transforms: called on one image at a time, with every random generator set for that image."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecd_deploy.data.draws import Purpose, stream_key
from ecd_deploy.errors import RecipeError, first_line, reraise_machine_fault
from ecd_deploy.models.resolve import find_factory

_KEY = "augment.transforms"
_NUMPY_SEEDS = 2**32


@dataclass(frozen=True)
class OwnTransform:
    """A transform of the user's, uint8 (C, H, W) -> the same; `name` is that of its factory."""

    name: str
    call: Callable[[Tensor], Any]

    @classmethod
    def of(cls, name: str) -> OwnTransform:
        """Make what `package.module:factory` names.

        Raises:
            RecipeError: it cannot be found, fails, or gives nothing that can be called.
        """
        factory = find_factory(name, what=_KEY, failure=RecipeError)
        try:
            transform = factory()
        except Exception as error:
            reraise_machine_fault(error)
            raise RecipeError(f"{_KEY} '{name}': calling it failed with {first_line(error)}") from error
        if not callable(transform):
            raise RecipeError(f"{_KEY} '{name}' returned {type(transform).__name__}, which cannot be called")
        return cls(name, transform)

    def __call__(self, image: Tensor) -> Tensor:
        """Transform one image.

        Raises:
            RecipeError: it fails, or gives something else than an image of the same shape and type.
        """
        try:
            changed = self.call(image.clone())
        except Exception as error:
            reraise_machine_fault(error)
            raise RecipeError(
                f"{_KEY} '{self.name}' failed on an image {_kind(image)} with {first_line(error)}"
            ) from error
        if not isinstance(changed, Tensor) or _kind(changed) != _kind(image):
            found = _kind(changed) if isinstance(changed, Tensor) else type(changed).__name__
            raise RecipeError(f"{_KEY} '{self.name}' must give an image {_kind(image)}, and gave {found}")
        return changed


def apply_own(
    transforms: tuple[OwnTransform, ...], images: Tensor, draws: NDArray[np.int64], *, seed: int, epoch: int
) -> Tensor:
    """Transform each image by itself, one after the other.

    Args:
        transforms: in this order.
        images: uint8, (n, C, H, W).
        draws: int64, (n,), of each image, such as its index in the training split: what is drawn depends on it.
        seed: of the run.
        epoch: counted from 1.

    Raises:
        RecipeError: a transform cannot be used.
    """
    changed = []
    with _generators_kept(images.device):
        for image, draw in zip(images, draws.tolist(), strict=True):
            key = stream_key(seed, epoch, Purpose.OWN_TRANSFORM, draw)
            torch.manual_seed(key)
            random.seed(key)
            np.random.seed(key % _NUMPY_SEEDS)  # noqa: NPY002 (the generator that users' transforms draw from)
            changed.append(reduce(lambda made, transform: transform(made), transforms, image))
    return torch.stack(changed)


@contextmanager
def _generators_kept(device: torch.device) -> Iterator[None]:
    """Give the generators of torch, Python and NumPy their states back at the end."""
    python, numpy = random.getstate(), np.random.get_state(legacy=False)  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _kind(image: Tensor) -> str:
    return f"{str(image.dtype).removeprefix('torch.')} {tuple(image.shape)}"
