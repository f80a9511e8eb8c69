"""What an export may look at besides the student: real images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.data import ImageSet, Normalisation, eval_batches


@dataclass(frozen=True)
class ExportContext:
    """Images for formats that are calibrated, and how much accuracy they may lose; never the test images.

    Attributes:
        train: to calibrate on.
        validation: to see what quantisation costs; None if the run trained on every image.
        normalisation: of both.
        seed: of the choice of calibration images.
        max_drop: largest loss of top-1 on the validation images, a fraction, where the format sets none itself.
    """

    train: ImageSet
    validation: ImageSet | None
    normalisation: Normalisation
    seed: int = 0
    max_drop: float = 0.01

    def batches(self, images: ImageSet, size: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Normalised images (n, C, H, W) and their labels (n,), as the student takes them."""
        for batch in eval_batches(images, self.normalisation, size):
            yield batch.images.numpy(), batch.labels.numpy()
