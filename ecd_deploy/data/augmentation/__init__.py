"""What training images go through, each with draws of its own: functions of (seed, epoch, index)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecd_deploy.errors import RecipeError
from ecd_deploy.recipe.augment import AugmentConfig

if TYPE_CHECKING:
    from ecd_deploy.data.augmentation.augmenter import Augmenter
    from ecd_deploy.data.images import DataSplits
    from ecd_deploy.recipe.recipe import Recipe


def find_augmenter(recipe: Recipe, data: DataSplits) -> Augmenter | None:
    """Make what the recipe's `[augment]` asks for; None if it asks for nothing.

    Args:
        recipe: `augment` and `seed` are used.
        data: of the run.

    Raises:
        RecipeError: a transform of the user cannot be found or made, or something is asked for that does nothing.
    """
    config = recipe.augment
    if config == AugmentConfig():
        return None
    for key, value in (("saturation", config.saturation), ("hue", config.hue)):
        if data.in_channels == 1 and value:
            raise RecipeError(f"augment.{key} {value} has no effect on grey images: remove it")
    # torchvision, which these import, takes seconds to load
    from ecd_deploy.data.augmentation.augmenter import Augmenter
    from ecd_deploy.data.augmentation.own import OwnTransform

    return Augmenter(config, tuple(map(OwnTransform.of, config.transforms)), len(data.classes), recipe.seed)
