"""A predictor is a function from a batch of normalised images to logits, whatever runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Predictor = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Images (N, C, H, W), normalised, to logits (N, classes)."""


@dataclass(frozen=True)
class Predictions:
    """Logits (N, classes) of N labelled images, labels (N,)."""

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each image's largest logit is that of its label, (N,); never for a row with a NaN."""
        finite = np.isfinite(self.logits).all(axis=1)
        correct: NDArray[np.bool_] = finite & (self.logits.argmax(axis=1) == self.labels)
        return correct


def predict(predictor: Predictor, batches: Iterable[tuple[NDArray[np.float32], NDArray[np.int64]]]) -> Predictions:
    """Run a predictor over batches of (images (N, C, H, W), labels (N,))."""
    logits: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.int64]] = []
    for images, targets in batches:
        logits.append(predictor(images))
        labels.append(targets)
    return Predictions(np.concatenate(logits), np.concatenate(labels))
