from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from ecd_deploy.measure.predictors.prediction import predict

Batch = tuple[NDArray[np.float32], NDArray[np.int64]]

SIZE = 20
"""Three such batches are handed to a thread together."""


def batches(count: int, given: list[int] | None = None) -> Iterator[Batch]:
    for number in range(count):
        if given is not None:
            given.append(number)
        yield np.full((SIZE, 1, 1, 1), number, np.float32), np.full(SIZE, number)


def slower_the_earlier(images: NDArray[np.float32]) -> NDArray[np.float32]:
    time.sleep(0.02 - float(images.max()) / 1000)
    return images.reshape(len(images), 1)


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_predictions_keep_the_order_of_the_batches(at_once: int) -> None:
    found = predict(slower_the_earlier, batches(12), at_once=at_once)
    assert found.labels.tolist() == [number for number in range(12) for _ in range(SIZE)]
    assert found.logits[:, 0].tolist() == found.labels.tolist()


def test_few_batches_are_made_ahead() -> None:
    given: list[int] = []
    ahead: list[int] = []

    def look(images: NDArray[np.float32]) -> NDArray[np.float32]:
        ahead.append(len(given) - int(images.max()))
        return slower_the_earlier(images)

    predict(look, batches(20, given), at_once=3)
    assert len(ahead) == 20
    assert max(ahead) <= 3 * 5


def test_what_a_batch_raises_ends_all() -> None:
    def fail(images: NDArray[np.float32]) -> NDArray[np.float32]:
        if images.max() == 2:
            raise ValueError("no such batch")
        return slower_the_earlier(images)

    with pytest.raises(ValueError, match="no such batch"):
        predict(fail, batches(12), at_once=2)
