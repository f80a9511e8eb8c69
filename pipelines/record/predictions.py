"""`predictions.safetensors`: what the ONNX student chose for each test image, so that runs can be compared later."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
_SAMPLES = "samples"
_SAMPLE_LOGITS = "sample_logits"


@dataclass(frozen=True)
class Samples:
    """Test images that a bundle will hold: their indices (n,) and the PyTorch student's logits (n, classes)."""

    indices: NDArray[np.int64]
    logits: NDArray[np.float32]


@dataclass(frozen=True)
class StoredPredictions:
    """Labels and choices (N,) of the test images in their order; -1 where a logit was not finite.

    `test_digest` is the SHA-256 of the classes, images and labels: where it is the same, the images are.
    `samples` is None in runs of versions that kept none.
    """

    labels: NDArray[np.int32]
    chosen: NDArray[np.int32]
    classes: tuple[str, ...]
    test_digest: str
    samples: Samples | None = None

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each image is classified correctly, (N,)."""
        correct: NDArray[np.bool_] = self.labels == self.chosen
        return correct


def choices_of(
    predictions: Predictions, classes: tuple[str, ...], test_digest: str, samples: Samples | None = None
) -> StoredPredictions:
    """The choices of a model on the whole test set."""
    finite = np.isfinite(predictions.logits).all(axis=1)
    chosen = np.where(finite, predictions.logits.argmax(axis=1), _NO_CLASS).astype(np.int32)
    return StoredPredictions(predictions.labels.astype(np.int32), chosen, classes, test_digest, samples)


def write_predictions(directory: RunDirectory, stored: StoredPredictions) -> None:
    """Keep the choices of the ONNX student, and the samples."""
    tensors: dict[str, NDArray[Any]] = {"labels": stored.labels, "chosen": stored.chosen}
    if stored.samples is not None:
        tensors |= {_SAMPLES: stored.samples.indices, _SAMPLE_LOGITS: stored.samples.logits}
    described = json.dumps({"classes": stored.classes, "test_digest": stored.test_digest})
    directory.write(PREDICTIONS_NAME, save(tensors, metadata={_METADATA_KEY: described}))


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
        described = json.loads(header["__metadata__"][_METADATA_KEY])
        samples = Samples(tensors[_SAMPLES], tensors[_SAMPLE_LOGITS]) if _SAMPLES in tensors else None
        return StoredPredictions(
            tensors["labels"], tensors["chosen"], tuple(described["classes"]), described["test_digest"], samples
        )
    except (SafetensorError, ValueError, KeyError) as error:
        raise ArtefactError(f"{directory.root / PREDICTIONS_NAME} does not hold predictions: {error}") from error


def lost_and_gained(own: StoredPredictions, theirs: StoredPredictions) -> tuple[int, int] | None:
    """Images that only the others classify correctly, and only these; None where the test images differ."""
    if own.test_digest != theirs.test_digest:
        return None
    return int((theirs.correct & ~own.correct).sum()), int((own.correct & ~theirs.correct).sum())
