"""What a classifier said of labelled images: all that accuracy, its bounds and its limits are computed from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import compress

import numpy as np
from numpy.typing import NDArray

_ROWS = 1024


@dataclass(frozen=True)
class SliceColumn:
    """A property of the images, such as the camera: one value an image, in their order."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class ScoredImages:
    """Labelled images with the probabilities that a classifier gave them.

    Attributes:
        probabilities: float32, (N, classes), each row summing to 1; a row of NaN where a logit was not finite.
        labels: int64, (N,), in [0, classes).
        classes: names, in the order of the outputs.
        slices: columns of values that tell the images apart.
    """

    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    slices: tuple[SliceColumn, ...] = ()

    def __post_init__(self) -> None:
        if self.probabilities.shape != (len(self.labels), len(self.classes)):
            raise ValueError(
                f"{len(self.labels)} labels and {len(self.classes)} classes do not fit probabilities of "
                f"{self.probabilities.shape}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, members: NDArray[np.bool_]) -> ScoredImages:
        """The images of a mask (N,)."""
        columns = tuple(SliceColumn(column.name, tuple(compress(column.values, members))) for column in self.slices)
        return ScoredImages(self.probabilities[members], self.labels[members], self.classes, columns)

    @cached_property
    def chosen(self) -> NDArray[np.int64]:
        """The class of the largest probability of each image, (N,); -1 where they are not finite."""
        finite = np.isfinite(self.probabilities).all(axis=1)
        return np.where(finite, self.probabilities.argmax(axis=1), -1).astype(np.int64)

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each image is classified correctly, (N,)."""
        correct: NDArray[np.bool_] = self.chosen == self.labels
        return correct


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of logits, (N, classes) each; a row of NaN where a logit is not finite."""
    probabilities = np.empty(logits.shape, dtype=np.float32)
    for start in range(0, len(logits), _ROWS):  # in float64, a few times the memory of the result
        rows = logits[start : start + _ROWS]
        finite = np.isfinite(rows).all(axis=1, keepdims=True)
        exact = np.where(finite, rows, 0.0).astype(np.float64)
        powers = np.exp(exact - exact.max(axis=1, keepdims=True))
        probabilities[start : start + _ROWS] = np.where(finite, powers / powers.sum(axis=1, keepdims=True), np.nan)
    return probabilities
