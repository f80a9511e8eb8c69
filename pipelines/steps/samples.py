"""Which test images a bundle will hold: some of each class, and none whose class hangs on rounding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.data import ImageSet
from ecd_deploy.measure.predictors.prediction import Predictions
from ecd_deploy.pipelines.record.predictions import Samples
from ecd_deploy.recipe.gate import GateConfig

_MOST = 256
_MOST_BYTES = 8_000_000
_DEFAULT_DIFFERENCE = 1e-4


def choose_samples(images: ImageSet, found: Predictions, gate: GateConfig) -> Samples:
    """Take the first test image of each class, then the second of each, up to 256 images or 8 MB.

    An image is left out whose two largest logits may change places on another processor.

    Args:
        images: of the test.
        found: the PyTorch student's logits of them.
        gate: of the recipe.
    """
    chosen = choose_places(found.logits, found.labels, 2 * largest_difference(gate), images.images[0].size)
    return Samples(chosen, found.logits[chosen])


def choose_places(
    scores: NDArray[np.float32], labels: NDArray[np.int64], margin: float, image_bytes: int
) -> NDArray[np.int64]:
    """Places of the first clear image of each class, then of the second of each, up to 256 images or 8 MB, in order.

    Args:
        scores: (N, classes).
        labels: (N,).
        margin: an image is clear whose two largest scores differ by more.
        image_bytes: of one image.
    """
    two_largest = np.sort(scores, axis=1)[:, -2:]
    clear = np.flatnonzero(two_largest[:, 1] - two_largest[:, 0] > margin)
    rank = np.zeros(len(clear), dtype=np.int64)
    for label in np.unique(labels[clear]):
        members = labels[clear] == label
        rank[members] = np.arange(members.sum())
    count = min(_MOST, max(1, _MOST_BYTES // image_bytes))
    return np.sort(clear[np.lexsort((clear, rank))[:count]])


def largest_difference(gate: GateConfig) -> float:
    """How far a logit of an artefact in float32 may be off."""
    return _DEFAULT_DIFFERENCE if gate.max_abs_diff is None else gate.max_abs_diff
