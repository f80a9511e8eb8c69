"""Which test images go into a bundle: some of each class, and none whose class hangs on rounding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ecd_deploy.data import DataSplits, eval_batches
from ecd_deploy.errors import ArtefactError
from ecd_deploy.measure.prediction import predict, torch_predictor
from ecd_deploy.split import SplitStudent

_MOST = 256
_MOST_BYTES = 8_000_000
_BATCH_SIZE = 128


@dataclass(frozen=True)
class Samples:
    """Images uint8 (n, C, H, W) with their labels (n,) and the PyTorch student's logits (n, classes)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]


def choose_samples(student: SplitStudent, data: DataSplits, *, margin: float) -> Samples:
    """Take the first test image of each class, then the second of each, up to 256 images or 8 MB.

    Args:
        student: whose logits are recorded.
        data: of the run.
        margin: an image is left out whose two largest logits are no further apart: on another processor the other
            one might win.

    Raises:
        ArtefactError: none is left.
    """
    batches = eval_batches(data.test, data.normalisation, _BATCH_SIZE)
    found = predict(torch_predictor(student.module), ((batch.images, batch.labels) for batch in batches))
    two_largest = np.sort(found.logits, axis=1)[:, -2:]
    clear = np.flatnonzero(two_largest[:, 1] - two_largest[:, 0] > margin)
    if not clear.size:
        raise ArtefactError(f"no bundle: the student's two largest logits are within {margin:.2g} on every test image")
    rank = np.zeros(len(clear), dtype=np.int64)
    for label in np.unique(found.labels[clear]):
        members = found.labels[clear] == label
        rank[members] = np.arange(members.sum())
    count = min(_MOST, max(1, _MOST_BYTES // data.test.images[0].numel()))
    chosen = np.sort(clear[np.lexsort((clear, rank))[:count]])
    images: NDArray[np.uint8] = data.test.images[torch.from_numpy(chosen)].numpy()
    return Samples(images, found.labels[chosen], found.logits[chosen])
