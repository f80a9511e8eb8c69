"""`predictions.safetensors`: the probabilities that each artefact gave each test image, for limits and comparisons."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ecd_deploy.errors import ArtefactError, RunDirectoryError
from ecd_deploy.measure.scores.scored import ScoredImages, SliceColumn, softmax
from ecd_deploy.pipelines.record.names import PREDICTIONS_NAME, VALIDATION_NAME
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.pipelines.record.validation import Validation

if TYPE_CHECKING:
    from ecd_deploy.measure.predictors.prediction import Predictions

_METADATA_KEY = "ecd_deploy"
_PROBABILITIES = "probabilities of "
_HEADER_BYTES = 8
_SAMPLES = "samples"
_SAMPLE_LOGITS = "sample_logits"


@dataclass(frozen=True)
class Samples:
    """Test images that a bundle will hold: their indices (n,) and the PyTorch student's logits (n, classes)."""

    indices: NDArray[np.int64]
    logits: NDArray[np.float32]


@dataclass(frozen=True)
class StoredPredictions(ScoredImages):
    """The test images of a run in their order, with the probabilities that one of its artefacts gave them.

    `test_digest` is the SHA-256 of the classes, images and labels: where it is the same, the images are.
    `samples` is None in runs of versions that kept none.
    """

    test_digest: str = field(kw_only=True)
    samples: Samples | None = field(default=None, kw_only=True)


def scores_of(
    predictions: Predictions,
    classes: tuple[str, ...],
    test_digest: str,
    samples: Samples | None = None,
    columns: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> StoredPredictions:
    """What a model says of the whole test set, whose images `columns` tell apart."""
    return StoredPredictions(
        softmax(predictions.logits),
        predictions.labels,
        classes,
        _slices(columns),
        test_digest=test_digest,
        samples=samples,
    )


def write_predictions(directory: RunDirectory, found: Mapping[str, StoredPredictions]) -> None:
    """Keep what each artefact says, by format, and the samples; at least one, all of the same images."""
    stored = next(iter(found.values()))
    tensors: dict[str, NDArray[Any]] = {"labels": stored.labels}
    tensors |= {f"{_PROBABILITIES}{name}": one.probabilities for name, one in found.items()}
    if stored.samples is not None:
        tensors |= {_SAMPLES: stored.samples.indices, _SAMPLE_LOGITS: stored.samples.logits}
    described: dict[str, Any] = {"classes": stored.classes, "test_digest": stored.test_digest}
    if stored.slices:
        described["slices"] = {column.name: column.values for column in stored.slices}
    directory.write(PREDICTIONS_NAME, save(tensors, metadata={_METADATA_KEY: json.dumps(described)}))


def read_predictions(directory: RunDirectory) -> dict[str, StoredPredictions]:
    """Read what `validate` kept of each artefact, by format.

    Raises:
        RunDirectoryError: it was not run, or by a version that kept no probabilities.
        ArtefactError: the file was changed or is not one.
    """
    directory.require(PREDICTIONS_NAME)
    data = directory.read(PREDICTIONS_NAME)
    try:
        tensors = load(data)
        length = int.from_bytes(data[:_HEADER_BYTES], "little")
        header = json.loads(data[_HEADER_BYTES : _HEADER_BYTES + length])
        described = json.loads(header["__metadata__"][_METADATA_KEY])
        if "chosen" in tensors:
            raise RunDirectoryError(
                f"{directory.root / PREDICTIONS_NAME} holds no probabilities, as an older version wrote it: run "
                f"`ecd-deploy validate {directory.root}` again"
            )
        labels, classes = tensors["labels"].astype(np.int64), tuple(described["classes"])
        slices = _slices(described.get("slices", {}))
        samples = Samples(tensors[_SAMPLES], tensors[_SAMPLE_LOGITS]) if _SAMPLES in tensors else None
        return {
            name.removeprefix(_PROBABILITIES): StoredPredictions(
                tensor, labels, classes, slices, test_digest=described["test_digest"], samples=samples
            )
            for name, tensor in tensors.items()
            if name.startswith(_PROBABILITIES)
        }
    except (SafetensorError, ValueError, KeyError) as error:
        raise ArtefactError(f"{directory.root / PREDICTIONS_NAME} does not hold predictions: {error}") from error


def _slices(columns: Mapping[str, Sequence[str]]) -> tuple[SliceColumn, ...]:
    return tuple(SliceColumn(name, tuple(values)) for name, values in columns.items())


def shipped_format(directory: RunDirectory, choice: str | None = None) -> str:
    """The format that ships, of a validated run; `choice` in place of the recipe's `gate.artefact`."""
    validation = directory.read_json(VALIDATION_NAME, Validation)
    return validation.shipping(choice or directory.recipe.gate.artefact)[0].format


def shipped_predictions(directory: RunDirectory, choice: str | None = None) -> StoredPredictions:
    """The predictions of what ships; see `shipped_format`."""
    return read_predictions(directory)[shipped_format(directory, choice)]


def lost_and_gained(own: StoredPredictions, theirs: StoredPredictions) -> tuple[int, int] | None:
    """Images that only the others classify correctly, and only these; None where the test images differ."""
    if own.test_digest != theirs.test_digest:
        return None
    return int((theirs.correct & ~own.correct).sum()), int((own.correct & ~theirs.correct).sum())
