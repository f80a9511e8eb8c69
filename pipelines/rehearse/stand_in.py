"""A rehearsal before there are images: on noise of their shape."""

from __future__ import annotations

import numpy as np

from ecd_deploy.data import DataSplits, ImageSet, Normalisation
from ecd_deploy.pipelines.rehearse.rehearsal import rehearse
from ecd_deploy.pipelines.rehearse.result import Rehearsal
from ecd_deploy.recipe.recipe import Recipe

_IMAGES = 8
_HALF = 0.5


def rehearse_on_noise(recipe: Recipe, input_shape: tuple[int, int, int], classes: int) -> Rehearsal:
    """Rehearse a recipe without its images; what hangs on their number is left out.

    Args:
        recipe: of the run.
        input_shape: channels, height and width of its images.
        classes: of its images.

    Raises:
        UsageError: what would fail later.
    """
    pixels = np.random.default_rng(recipe.seed).integers(256, size=(_IMAGES, *input_shape), dtype=np.uint8)
    noise = ImageSet(pixels, np.arange(_IMAGES) % classes)
    channels = input_shape[0]
    normalisation = Normalisation(recipe.data.mean or (_HALF,) * channels, recipe.data.std or (_HALF,) * channels)
    data = DataSplits(noise, None, noise, tuple(map(str, range(classes))), normalisation, digest="")
    return rehearse(recipe, data, noise=True)
