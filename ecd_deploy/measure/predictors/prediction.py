"""A predictor is a function from a batch of normalised images to logits, whatever runs it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

_IMAGES_OF_A_TASK = 64
"""Small batches are handed to a thread together: one by one, single images of a small network take a quarter longer."""

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


def predict(
    predictor: Predictor, batches: Iterable[tuple[NDArray[np.float32], NDArray[np.int64]]], *, at_once: int = 1
) -> Predictions:
    """Run a predictor over batches of (images (N, C, H, W), labels (N,)).

    Args:
        predictor: which several threads may call, if it runs several batches at once.
        batches: in the order of the predictions.
        at_once: batches that threads run side by side. Of small batches, a runtime's own threads have too little each.
    """
    labels: list[NDArray[np.int64]] = []

    def images() -> Iterator[NDArray[np.float32]]:
        for given, targets in batches:
            labels.append(targets)
            yield given

    logits = list(map(predictor, images()) if at_once == 1 else _side_by_side(predictor, images(), at_once))
    return Predictions(np.concatenate(logits), np.concatenate(labels))


def _side_by_side(
    predictor: Predictor, batches: Iterable[NDArray[np.float32]], at_once: int
) -> Iterator[NDArray[np.float32]]:
    running: deque[Future[list[NDArray[np.float32]]]] = deque()
    with ThreadPoolExecutor(at_once) as pool:
        for task in _tasks(iter(batches)):
            if len(running) > at_once:
                yield from running.popleft().result()
            running.append(pool.submit(lambda given: list(map(predictor, given)), task))
        while running:
            yield from running.popleft().result()


def _tasks(batches: Iterator[NDArray[np.float32]]) -> Iterator[list[NDArray[np.float32]]]:
    for first in batches:
        yield [first, *islice(batches, max(1, _IMAGES_OF_A_TASK // len(first)) - 1)]
