"""Labelled images with probabilities that a test chooses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ecd_deploy.measure.scores.scored import ScoredImages, SliceColumn


def scored(
    labels: Sequence[int],
    chosen: Sequence[int],
    classes: Sequence[str] = ("a", "b", "c"),
    *,
    confidence: float = 0.9,
    slices: tuple[SliceColumn, ...] = (),
) -> ScoredImages:
    """Images whose chosen class has the probability `confidence`, and the others the rest; -1 chooses nothing."""
    size = len(classes)
    probabilities = np.full((len(labels), size), (1 - confidence) / (size - 1), np.float32)
    for row, index in enumerate(chosen):
        if index < 0:
            probabilities[row] = np.nan
        else:
            probabilities[row, index] = confidence
    return ScoredImages(probabilities, np.array(labels, np.int64), tuple(classes), slices)


def with_right(right: Sequence[int], images: Sequence[int]) -> ScoredImages:
    """Images of as many classes as counts, of each of which so many are right; the others are taken for the next."""
    size = len(images)
    labels = [index for index, count in enumerate(images) for _ in range(count)]
    chosen = [
        index if position < right[index] else (index + 1) % size
        for index, count in enumerate(images)
        for position in range(count)
    ]
    return scored(labels, chosen, [f"class {index}" for index in range(size)])
