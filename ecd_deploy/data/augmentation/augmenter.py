"""What the recipe's `[augment]` does to the images of a step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ecd_deploy.data.augmentation.erasing import draw_erased, erase
from ecd_deploy.data.augmentation.mixing import draw_mixing, mix
from ecd_deploy.data.augmentation.operations import apply_operations, as_bytes
from ecd_deploy.data.augmentation.own import OwnTransform, apply_own
from ecd_deploy.data.augmentation.rounds import draw_rounds
from ecd_deploy.data.batch import Batch
from ecd_deploy.recipe.augment import AugmentConfig


@dataclass(frozen=True)
class Augmenter:
    """Changes images where they are trained on; made by `find_augmenter`.

    Up to the mixing an image depends on (seed, epoch, draw) alone, not on the batch it comes in. What it is mixed with
    is decided by the order of its step.

    Attributes:
        config: of the recipe.
        transforms: of the user.
        classes: of the images.
        seed: of the run.
    """

    config: AugmentConfig
    transforms: tuple[OwnTransform, ...]
    classes: int
    seed: int

    def change(self, images: Tensor, draws: NDArray[np.int64], epoch: int) -> Tensor:
        """Rotate, apply the policy, jitter the colours, and call the user's transforms.

        Args:
            images: uint8, (n, C, H, W).
            draws: int64, (n,), of each image, such as its index in the training split.
            epoch: counted from 1.

        Returns:
            uint8, (n, C, H, W).

        Raises:
            RecipeError: a transform of the user cannot be used.
        """
        height, width = images.shape[2:]
        rounds = list(draw_rounds(self.config, (height, width), draws, seed=self.seed, epoch=epoch))
        if rounds:
            changed = images.float()
            for drawn in rounds:
                changed = apply_operations(changed, drawn.names, drawn.strengths)
            images = as_bytes(changed)
        if self.transforms:
            images = apply_own(self.transforms, images, draws, seed=self.seed, epoch=epoch)
        return images

    def finish(self, batch: Batch, draws: NDArray[np.int64], epoch: int) -> Batch:
        """Erase, and mix images and labels; `batch` is normalised, and its images are changed in place."""
        height, width = batch.images.shape[2:]
        if self.config.random_erasing:
            erased = draw_erased(self.config.random_erasing, (height, width), draws, seed=self.seed, epoch=epoch)
            erase(batch.images, erased)
        if not self.config.mixes_labels:
            return batch
        mixing = draw_mixing(self.config.mixup, self.config.cutmix, (height, width), draws, seed=self.seed, epoch=epoch)
        images, shares = mix(batch.images, batch.labels, self.classes, mixing)
        return replace(batch, images=images, shares=shares)
