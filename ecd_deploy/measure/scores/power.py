"""What a set of test images can show at all: the strictest limits that students of it would pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.measure.scores.classification import TOP
from ecd_deploy.measure.scores.drops import PAIRED, Pair
from ecd_deploy.measure.scores.estimates import OWN, empty_classes
from ecd_deploy.measure.scores.scored import ScoredImages

TRIALS: Final = 100
USUAL_SHARE: Final = 0.8
ASSUMED_DISAGREEMENT: Final = 0.03


@dataclass(frozen=True)
class Strictest:
    """The strictest values of one limit.

    Attributes:
        name: of the limit.
        best: that a student without a mistake, or one that says what the baseline says, would pass.
        usual: that a student no worse than the baseline passes in 8 of 10 cases; None for a limit without a baseline.
    """

    name: str
    best: float
    usual: float | None = None


@dataclass(frozen=True)
class Power:
    """What so many images can show.

    Attributes:
        images: how many there are.
        disagreement: share of the images that student and baseline judge differently.
        assumed: whether that is a guess, since there is no baseline.
        limits: by name.
    """

    images: int
    disagreement: float
    assumed: bool
    limits: tuple[Strictest, ...]


def power(images: ScoredImages, baseline: ScoredImages | None, confidence: float) -> Power:
    """Find the strictest limits that these images can decide in favour of a good student.

    For a student no worse than the baseline, what the two say of an image is exchanged for a random half of the images:
    so they differ as these two do, and none is better. Without a baseline, 3 % of the images are judged differently.
    Limits that these images can never decide are left out: top-5 of five classes, recalls of classes without images.
    """
    shown = _applicable(images)
    pair = Pair(images, baseline or _mistaken(images))
    perfect = replace(images, probabilities=np.eye(len(images.classes), dtype=np.float32)[images.labels])
    own = [Strictest(name, OWN[name](perfect, confidence).bound) for name in OWN if name in shown]
    generator = np.random.default_rng(0)
    equals = [_exchanged(pair, generator.random(len(images)) < 0.5) for _ in range(TRIALS)]
    paired = [
        Strictest(
            name,
            estimate(Pair(images, images), confidence).bound,
            float(np.quantile([estimate(each, confidence).bound for each in equals], USUAL_SHARE)),
        )
        for name, estimate in PAIRED.items()
        if name in shown
    ]
    return Power(
        images=len(images),
        disagreement=float((pair.candidate.correct != pair.baseline.correct).mean()),
        assumed=baseline is None,
        limits=(*own, *paired),
    )


def _applicable(images: ScoredImages) -> set[str]:
    names = {*OWN, *PAIRED}
    if len(images.classes) <= TOP:
        names -= {"min_top5", "max_top5_drop"}
    if empty_classes(images) is not None:
        names -= {"min_balanced_accuracy", "min_class_recall", "max_balanced_accuracy_drop", "max_class_recall_drop"}
    return names


def _exchanged(pair: Pair, which: NDArray[np.bool_]) -> Pair:
    ours, theirs = pair.candidate.probabilities, pair.baseline.probabilities
    rows = which[:, None]
    return Pair(
        replace(pair.candidate, probabilities=np.where(rows, theirs, ours)),
        replace(pair.baseline, probabilities=np.where(rows, ours, theirs)),
    )


def _mistaken(images: ScoredImages) -> ScoredImages:
    """The same, but for some images that are right here and there are taken for the class that comes second."""
    right = np.flatnonzero(images.correct)
    count = min(round(ASSUMED_DISAGREEMENT * len(images)), len(right))
    rows = np.random.default_rng(0).choice(right, count, replace=False)
    probabilities = images.probabilities.copy()
    first, second = np.argsort(-probabilities[rows], axis=1)[:, :2].T
    probabilities[rows, first], probabilities[rows, second] = probabilities[rows, second], probabilities[rows, first]
    return replace(images, probabilities=probabilities)
