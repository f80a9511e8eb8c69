"""Which images each step of an epoch takes, and which of them are this process's share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecd_deploy.data.draws import Purpose, draw_bits, stream_key
from ecd_deploy.data.subsets import balanced_draws
from ecd_deploy.errors import DataError

LEAST_SHARE = 2  # images a process needs in a step: batch norm cannot train on a single value


@dataclass(frozen=True)
class Share:
    """One process's images of a step.

    Attributes:
        indices: int64, (n,), positions in the split.
        draws: int64, (n,), by which the augmentation is drawn: an image's index, and another number each time that an
            epoch repeats it.
        step_images: images of the step over all processes.
    """

    indices: Tensor
    draws: Tensor
    step_images: int


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """The order of a training split's images, a function of (seed, epoch) alone.

    The step's images are the same for any number of processes. The last, partial step is kept unless
    it leaves a process fewer than two images.

    Attributes:
        images: in the split.
        batch_size: images of a step over all processes.
        seed: of the run.
        process_index: of this process.
        process_count: over which each step is spread.
        balanced: labels of the images, int64 (images,), to draw each class equally often; None draws every image once.

    Raises:
        DataError: there are too few images for a single step.
    """

    images: int
    batch_size: int
    seed: int
    process_index: int = 0
    process_count: int = 1
    balanced: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if len(self) == 0 or self.batch_size < LEAST_SHARE * self.process_count:
            raise DataError(
                f"{self.images} training images in batches of {self.batch_size} leave a process fewer than "
                f"{LEAST_SHARE} images a step ({self.process_count} process(es))"
            )

    def __len__(self) -> int:
        whole, rest = divmod(self.images, self.batch_size)
        return whole + (rest >= LEAST_SHARE * self.process_count)

    def shares(self, epoch: int, first_step: int = 0, device: torch.device | None = None) -> Iterator[Share]:
        """Yield this process's share of each step from `first_step` on."""
        every = torch.arange(self.images, device=device)
        order = draw_bits(stream_key(self.seed, epoch, Purpose.ORDER), every).argsort(stable=True)
        if self.balanced is not None:
            drawn = balanced_draws(self.balanced, seed=self.seed, epoch=epoch)
            order = torch.from_numpy(drawn).to(device)[order]
        for step in range(first_step, len(self)):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            draws = chosen.tensor_split(self.process_count)[self.process_index]
            indices = draws if self.balanced is None else draws % self.images
            yield Share(indices, draws, len(chosen))
