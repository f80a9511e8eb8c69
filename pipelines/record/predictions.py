"""`predictions.safetensors`: what the ONNX student chose for each test image, so that runs can be compared later."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ecd_deploy.errors import ArtefactError
from ecd_deploy.pipelines.record.names import PREDICTIONS_NAME
from ecd_deploy.pipelines.record.run_directory import RunDirectory

if TYPE_CHECKING:
    from ecd_deploy.measure.prediction import Predictions

_METADATA_KEY = "ecd_deploy"
_HEADER_BYTES = 8
_NO_CLASS = -1


@dataclass(frozen=True)
class StoredPredictions:
    """Labels and choices (N,) of the test images in their order; -1 where a logit was not finite."""

    labels: NDArray[np.int32]
    chosen: NDArray[np.int32]
    classes: tuple[str, ...]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each image is classified correctly, (N,)."""
        correct: NDArray[np.bool_] = self.labels == self.chosen
        return correct


def write_predictions(directory: RunDirectory, predictions: Predictions, classes: tuple[str, ...]) -> StoredPredictions:
    """Keep the choices of a model on the whole test set."""
    finite = np.isfinite(predictions.logits).all(axis=1)
    chosen = np.where(finite, predictions.logits.argmax(axis=1), _NO_CLASS).astype(np.int32)
    stored = StoredPredictions(predictions.labels.astype(np.int32), chosen, classes)
    tensors = {"labels": stored.labels, "chosen": stored.chosen}
    directory.write(PREDICTIONS_NAME, save(tensors, metadata={_METADATA_KEY: json.dumps({"classes": classes})}))
    return stored


def read_predictions(directory: RunDirectory) -> StoredPredictions:
    """Read what `validate` kept.

    Raises:
        RunDirectoryError: it was not run, or by a version that kept nothing.
        ArtefactError: the file was changed or is not one.
    """
    directory.require(PREDICTIONS_NAME)
    data = directory.read(PREDICTIONS_NAME)
    try:
        tensors = load(data)
        length = int.from_bytes(data[:_HEADER_BYTES], "little")
        header = json.loads(data[_HEADER_BYTES : _HEADER_BYTES + length])
        classes = tuple(json.loads(header["__metadata__"][_METADATA_KEY])["classes"])
        return StoredPredictions(tensors["labels"], tensors["chosen"], classes)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ArtefactError(f"{directory.root / PREDICTIONS_NAME} does not hold predictions: {error}") from error


def lost_and_gained(own: StoredPredictions, theirs: StoredPredictions) -> tuple[int, int] | None:
    """Images that only the others classify correctly, and only these; None where classes or labels differ."""
    if own.classes != theirs.classes or not np.array_equal(own.labels, theirs.labels):
        return None
    return int((theirs.correct & ~own.correct).sum()), int((own.correct & ~theirs.correct).sum())
