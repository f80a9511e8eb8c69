"""Runs what was written on batches of several sizes."""

from __future__ import annotations

import numpy as np

from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.measure.prediction import Predictor

_SIZES = (1, 3)


def check_batches(predictor: Predictor, image_shape: tuple[int, int, int], classes: int, format_name: str) -> None:
    """Run blank images, one and several at once: a batch size frozen into the artefact shows here.

    Raises:
        ExportError: a batch does not run, or gives logits of another shape.
    """
    for size in _SIZES:
        try:
            logits = predictor(np.zeros((size, *image_shape), dtype=np.float32))
        except Exception as error:
            reraise_machine_fault(error)
            raise ExportError(f"the {format_name} artefact does not run on a batch of {size}: {error}") from error
        if logits.shape != (size, classes):
            raise ExportError(f"the {format_name} artefact gives logits {logits.shape}, expected {(size, classes)}")
