"""What an evaluation found, and its files: how they are written, and read back only as they were written."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ecd_deploy.data.imagefolder.listing import printable
from ecd_deploy.errors import ArtefactError, UsageError
from ecd_deploy.files import is_partial, read_verified, write_atomic
from ecd_deploy.measure.scores.classification import (
    TOP,
    chosen_by_class,
    confusion_counts,
    correct_by_class,
    images_by_class,
    in_top,
)
from ecd_deploy.measure.scores.scored import ScoredImages, softmax
from ecd_deploy.pipelines.evaluate.expectation import ClassesSource, Source
from ecd_deploy.pipelines.evaluate.preprocessing import Preprocessing
from ecd_deploy.records import Record

EVALUATION_NAME: Final = "evaluation.json"
PROBABILITIES_NAME: Final = "probabilities.safetensors"
PREDICTIONS_NAME: Final = "predictions.csv"
CONFUSION_NAME: Final = "confusion.csv"
_SUM_TOLERANCE = 0.01  # of probabilities that a model rounded to half precision


class ModelPart(Record):
    """A file that the model was put together from."""

    file: str
    sha256: str


class EvaluatedModel(Record):
    """The file that was evaluated."""

    file: str
    sha256: str
    bytes: int
    output: str
    scores: Literal["logits", "probabilities"]
    parts: tuple[ModelPart, ...] = ()
    """Where weights lie in other files, each of them as it lies; `sha256` is of what they give together."""


class EvaluatedImages(Record):
    """The images that it was evaluated on."""

    source: str
    sha256: str
    """Over the classes and, in their order, the files' names, bytes, labels and slices."""
    images: int
    skipped: int
    """Files that could not be used and were left out, as the call allowed."""


class ClassAccuracy(Record):
    """One class."""

    name: str
    images: int
    chosen: int
    """Images that were taken for it."""
    correct: int

    @property
    def recall(self) -> float | None:
        """Share of its images that were recognised; None without images."""
        return self.correct / self.images if self.images else None

    @property
    def precision(self) -> float | None:
        """Share of the images taken for it that are of it; None where there are none."""
        return self.correct / self.chosen if self.chosen else None


class Evaluation(Record, allow_inf_nan=False):
    """Written to `evaluation.json`; no time and no path in it, so that the same evaluation gives the same bytes."""

    schema_version: Literal[1] = 1
    model: EvaluatedModel
    images: EvaluatedImages
    preprocessing: Preprocessing
    preprocessing_from: Source
    preprocessing_sha256: str
    classes_from: ClassesSource | Literal["the images' numbers"]
    onnxruntime: str
    provider: str
    batch_size: int
    probabilities_sha256: str
    """Of `probabilities.safetensors`."""
    correct: int
    correct_top5: int | None
    """Images whose class is among the five with the largest scores; None for five classes or fewer."""
    classes: tuple[ClassAccuracy, ...]
    mean_confidence: float
    """Mean probability of the class that was chosen; well above top-1 in an overconfident model."""
    warnings: tuple[str, ...] = ()

    @property
    def classes_warning(self) -> str | None:
        """What is to be checked where only the images say which output is which class; None where more is known."""
        if self.classes_from == "the images' numbers":
            return "the images' classes are numbers, taken for those of the outputs, from 0; input.classes names them"
        if self.classes_from != "the images":
            return None
        shown = ", ".join(entry.name for entry in self.classes[:3])
        return (
            f"the outputs are taken for the images' classes in the order of their names as texts ({shown}, ...); set "
            "input.classes to be sure of it"
        )

    @property
    def top1(self) -> float:
        """Share of the images that were classified correctly."""
        return self.correct / self.images.images

    @property
    def top5(self) -> float | None:
        """Share of the images whose class is among the five with the largest scores."""
        return None if self.correct_top5 is None else self.correct_top5 / self.images.images

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the recalls of the classes that have images."""
        return float(np.mean([entry.recall for entry in self.classes if entry.recall is not None]))


def holds_probabilities(scores: NDArray[np.float32]) -> bool:
    """Whether no value is negative and those of every image (N, classes) sum to 1, but for rounding."""
    return bool((scores >= 0).all() and (np.abs(scores.sum(axis=1) - 1) <= _SUM_TOLERANCE).all())


def to_probabilities(
    scores: NDArray[np.float32], given: Literal["logits", "probabilities"] | None, model: str
) -> tuple[NDArray[np.float32], Literal["logits", "probabilities"]]:
    """Probabilities (N, classes) of a model's scores, and what those were.

    Raises:
        ArtefactError: they were said to be probabilities and are not.
    """
    are = holds_probabilities(scores)
    if given == "probabilities" and not are:
        raise ArtefactError(
            f"input.scores is 'probabilities', and {model} gives values that are negative or do not sum to 1"
        )
    if given == "logits" or not are:
        return softmax(scores), "logits"
    return scores / scores.sum(axis=1, keepdims=True), "probabilities"


def count_top5(scored: ScoredImages) -> int | None:
    """Images whose class is among the five with the largest probability; None for five classes or fewer."""
    return int(in_top(scored).sum()) if len(scored.classes) > TOP else None


def class_accuracies(scored: ScoredImages) -> tuple[ClassAccuracy, ...]:
    """Each class, in the order of the outputs."""
    counted = zip(
        scored.classes, images_by_class(scored), chosen_by_class(scored), correct_by_class(scored), strict=True
    )
    return tuple(
        ClassAccuracy(name=name, images=int(images), chosen=int(chosen), correct=int(correct))
        for name, images, chosen, correct in counted
    )


def check_output(folder: Path) -> None:
    """Check that results may be written to a folder: it is absent or empty, or holds an evaluation, to be replaced.

    Raises:
        UsageError: it holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is not a folder")
    if not folder.is_dir() or (folder / EVALUATION_NAME).is_file():
        return
    if any(not is_partial(path) for path in folder.iterdir()):
        raise UsageError(f"--out {folder} holds something else than an evaluation: choose another folder")


def probabilities_file(scored: ScoredImages) -> bytes:
    """Probabilities float32 (N, classes) and labels int64 (N,), with the names of the classes as metadata."""
    tensors: dict[str, NDArray[Any]] = {
        "probabilities": np.ascontiguousarray(scored.probabilities),
        "labels": scored.labels,
    }
    return save(tensors, metadata={"classes": json.dumps(scored.classes)})


def write_evaluation(folder: Path, evaluation: Evaluation, names: Sequence[str], scored: ScoredImages) -> None:
    """Write all files, `evaluation.json` last.

    Raises:
        ArtefactError: the folder cannot be written.
    """
    made = {
        PROBABILITIES_NAME: probabilities_file(scored),
        PREDICTIONS_NAME: _predictions(names, scored),
        CONFUSION_NAME: _confusion(scored.classes, confusion_counts(scored)),
        EVALUATION_NAME: evaluation.to_json(),
    }
    for name, data in made.items():
        write_atomic(folder / name, data)


def _predictions(names: Sequence[str], scored: ScoredImages) -> bytes:
    confidence = scored.probabilities.max(axis=1)
    rows = (
        (
            printable(name),
            scored.classes[label],
            scored.classes[choice],
            f"{confidence[place]:.6f}",
            int(label == choice),
            *(column.values[place] for column in scored.slices),
        )
        for place, (name, label, choice) in enumerate(zip(names, scored.labels, scored.chosen, strict=True))
    )
    return _csv(("path", "label", "chosen", "confidence", "correct", *(column.name for column in scored.slices)), rows)


def _confusion(classes: Sequence[str], counts: NDArray[np.int64]) -> bytes:
    return _csv(("class", *classes), ((name, *row) for name, row in zip(classes, counts.tolist(), strict=True)))


def _csv(header: Iterable[object], rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def read_evaluation(folder: Path) -> tuple[Evaluation, NDArray[np.float32]] | None:
    """What an evaluation left, with its probabilities (N, classes); None where there is none, or it was changed."""
    try:
        evaluation = Evaluation.from_json((folder / EVALUATION_NAME).read_bytes(), "no evaluation")
        data = read_verified(folder / PROBABILITIES_NAME, evaluation.probabilities_sha256)
        return evaluation, load(data)["probabilities"]
    except (OSError, ArtefactError, SafetensorError, KeyError):
        return None
