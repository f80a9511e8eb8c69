"""A predictor is a function from a batch of normalised images to logits, whatever runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

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


def torch_predictor(module: nn.Module) -> Predictor:
    """Run a module, in evaluation mode and without gradients, as a predictor.

    The module's mode is set here: a batch norm that is still training would make every comparison void.
    """
    module.eval()

    def predict(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: Tensor = module(torch.from_numpy(images))
        return logits.float().numpy()

    return predict


def predict(predictor: Predictor, batches: Iterable[tuple[Tensor, Tensor]]) -> Predictions:
    """Run a predictor over batches of (images (N, C, H, W), labels (N,))."""
    logits: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.int64]] = []
    for images, targets in batches:
        logits.append(predictor(images.numpy()))
        labels.append(targets.numpy())
    return Predictions(np.concatenate(logits), np.concatenate(labels))
