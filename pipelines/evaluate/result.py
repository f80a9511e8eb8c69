"""What an evaluation found: `evaluation.json`, and what its figures are computed from."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.errors import ArtefactError
from ecd_deploy.measure.classification import TOP, chosen_by_class, correct_by_class, images_by_class, in_top
from ecd_deploy.measure.scored import ScoredImages, softmax
from ecd_deploy.pipelines.evaluate.expectation import ClassesSource, Source
from ecd_deploy.pipelines.evaluate.preprocessing import Preprocessing
from ecd_deploy.records import Record

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
