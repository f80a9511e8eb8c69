"""How often the bounds of classes and of scores err, on simulated classifiers that are truly at the limit.

What could make a bound err is in them: classes of unequal difficulty and number, few images, rare and confident
mistakes. For Macro-F1 and the expected calibration error there is only a bootstrap, whose rates say why they are shown
and are no limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import Figure
from ecd_deploy.measure.scores import drops, estimates
from ecd_deploy.measure.scores.classification import (
    brier_scores,
    calibration_error,
    calibration_error_interval,
    log_losses,
    macro_f1,
    macro_f1_interval,
)
from ecd_deploy.measure.scores.drops import Pair
from ecd_deploy.measure.scores.estimates import Estimate
from ecd_deploy.measure.scores.scored import ScoredImages, softmax
from ecd_deploy.pipelines.gate.check import Verdict, verdict_of

TRIALS = 1_000
BOOTSTRAP_TRIALS = 300
CONFIDENCE = 0.95
_REFERENCE = 400_000


@dataclass(frozen=True)
class _Score:
    """A score by image, and the bounds on its mean and on the rise of that."""

    name: str
    of: Callable[[ScoredImages], NDArray[np.float64]]
    estimate: Callable[[ScoredImages, float], Estimate]
    rise: Callable[[Pair, float], Estimate]


SCORES = (
    _Score("Brier score", brier_scores, estimates.brier, drops.brier_rise),
    _Score("log loss", log_losses, estimates.log_loss, drops.log_loss_rise),
)


@dataclass(frozen=True)
class _Classes:
    """Classes with their true recalls and numbers of images; a wrong image is taken for any other class."""

    name: str
    recalls: tuple[float, ...]
    images: tuple[int, ...]

    def draw(self, generator: np.random.Generator) -> ScoredImages:
        labels = np.repeat(np.arange(len(self.images)), self.images)
        right = generator.random(len(labels)) < np.array(self.recalls)[labels]
        return _choosing(labels, np.where(right, labels, self.other(generator, labels)))

    def other(self, generator: np.random.Generator, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        return (labels + generator.integers(1, len(self.images), size=len(labels))) % len(self.images)

    def pair(self, generator: np.random.Generator, lower: Sequence[float]) -> Pair:
        """A baseline with these recalls, and a candidate that loses and gains, 2 % of the images more than it must."""
        labels = np.repeat(np.arange(len(self.images)), self.images)
        before = generator.random(len(labels)) < np.array(self.recalls)[labels]
        recalls, lowered = np.array(self.recalls)[labels], np.array(lower)[labels]
        gain = np.minimum(0.02, 1 - recalls)
        chance = np.where(
            before, (lowered + gain) / recalls, np.divide(gain, 1 - recalls, out=np.zeros_like(gain), where=recalls < 1)
        )
        after = before ^ (generator.random(len(labels)) < chance)
        wrong = self.other(generator, labels)
        return Pair(*(_choosing(labels, np.where(side, labels, wrong)) for side in (after, before)))


UNEVEN = tuple(np.linspace(0.7, 0.99, 10).tolist())
GROUPS = (
    _Classes("10 classes of 20", UNEVEN, (20,) * 10),
    _Classes("10 classes of 100", UNEVEN, (100,) * 10),
    _Classes("10 classes of 5 to 500", UNEVEN, (5, 8, 14, 23, 38, 64, 107, 179, 299, 500)),
    _Classes("100 classes of 10", (0.95,) * 100, (10,) * 100),
    _Classes("2 classes of 50", (0.98, 0.98), (50, 50)),
)
LOW = (
    _Classes("100 classes of 1 recalled at .3", (0.3,) * 100, (1,) * 100),
    _Classes("100 classes of 10 recalled at .1", (0.1,) * 100, (10,) * 100),
    _Classes("10 classes of 10 recalled at .05", (0.05,) * 10, (10,) * 10),
    _Classes("100 classes of 10 recalled at .02 to .3", tuple(np.linspace(0.02, 0.3, 100).tolist()), (10,) * 100),
    _Classes("100 classes of 2 or 20 recalled at .2", (0.2,) * 100, (2,) * 50 + (20,) * 50),
    _Classes("50 classes of 10 recalled at .1, 50 of 100 at .01", (0.1,) * 50 + (0.01,) * 50, (10,) * 50 + (100,) * 50),
)


@dataclass(frozen=True)
class _Classifier:
    """Logits of noise, and of `gain` for the label, all of them sharpened; some labels are swapped."""

    name: str
    gain: float
    sharpness: float
    swapped: float = 0.0
    classes: int = 10

    def draw(self, generator: np.random.Generator, images: int) -> ScoredImages:
        return self.pair(generator, images).baseline

    def pair(self, generator: np.random.Generator, images: int) -> Pair:
        labels = generator.integers(self.classes, size=images)
        seen = np.where(generator.random(images) < self.swapped, (labels + 1) % self.classes, labels)
        logits = self.sharpness * (
            generator.normal(size=(images, self.classes)) + self.gain * np.eye(self.classes)[seen]
        )
        names = tuple(map(str, range(self.classes)))
        sharpened, plain = (
            ScoredImages(softmax((factor * logits).astype(np.float32)), labels, names) for factor in (1.3, 1.0)
        )
        return Pair(sharpened, plain)


CLASSIFIERS = (
    _Classifier("a calibrated one", 2.0, 2.0),
    _Classifier("an overconfident one", 2.5, 5.0),
    _Classifier("one with 0.5 % confident mistakes", 8.0, 3.0, swapped=0.005),
)


def figures(generator: np.random.Generator) -> Iterator[Figure]:
    """Simulate every bound."""
    for group in GROUPS:
        yield from _balanced(generator, group)
    for count, images in ((10, 50), (10, 200), (100, 50)):
        yield from _worst(generator, count, images)
    for images in (30, 100):
        yield from _precision(generator, _Classes(f"10 classes of {images}", (0.9,) * 10, (images,) * 10))
    for classifier in CLASSIFIERS:
        for score in SCORES:
            for images in (200, 1_000):
                yield from _score(generator, classifier, score, images)
            yield from _rise(generator, classifier, score)
    yield from _bootstraps(generator)


def _balanced(generator: np.random.Generator, group: _Classes) -> Iterator[Figure]:
    yield from _average(generator, group, float(np.mean(group.recalls)) - 0.03)
    lower = [0.02] * len(group.images)
    yield from _rates(
        f"balanced accuracy drop, {group.name}",
        lambda: drops.balanced_accuracy_drop(group.pair(generator, lower), CONFIDENCE),
        0.02,
        0.05,
        at_least=False,
    )


def _average(generator: np.random.Generator, group: _Classes, easier: float) -> Iterator[Figure]:
    yield from _rates(
        f"balanced accuracy, {group.name}",
        lambda: estimates.balanced_accuracy(group.draw(generator), CONFIDENCE),
        float(np.mean(group.recalls)),
        easier,
        at_least=True,
    )


def low_recalls(generator: np.random.Generator) -> Iterator[Figure]:
    """Classes that are hardly recognised, where the squares of their bounds' distances alone would err too often."""
    for group in LOW:
        yield from _average(generator, group, 0.8 * float(np.mean(group.recalls)))


def _worst(generator: np.random.Generator, count: int, images: int) -> Iterator[Figure]:
    name, sizes = f"{count} classes of {images}", (images,) * count
    one = _Classes(name, (0.8,) + (1.0,) * (count - 1), sizes)
    yield from _rates(
        f"worst class recall, {name}",
        lambda: estimates.worst_recall(one.draw(generator), CONFIDENCE),
        0.8,
        0.7,
        at_least=True,
    )
    alike = _Classes(name, (0.83,) * count, sizes)
    drawn = [estimates.worst_recall(alike.draw(generator), CONFIDENCE) for _ in range(TRIALS)]
    failed = [verdict_of(each, 0.8, at_least=True) is Verdict.FAIL for each in drawn]
    yield rate_figure(f"worst class recall, {name}: false failure, all 3 points above", failed, 1 - CONFIDENCE)
    before, lower = _Classes(name, (0.9,) * count, sizes), [0.1] + [-0.02] * (count - 1)
    yield from _rates(
        f"worst class drop, {name}",
        lambda: drops.worst_recall_drop(before.pair(generator, lower), CONFIDENCE),
        0.1,
        0.2,
        at_least=False,
    )


def _precision(generator: np.random.Generator, group: _Classes) -> Iterator[Figure]:
    """All classes are alike, so that their precisions are their recalls."""
    yield from _rates(
        f"precision of a class, {group.name}",
        lambda: estimates.class_precision(group.draw(generator), 0, CONFIDENCE),
        0.9,
        0.8,
        at_least=True,
    )
    yield from _rates(
        f"precision drop of a class, {group.name}",
        lambda: drops.class_precision_drop(group.pair(generator, [0.05] * 10), 0, CONFIDENCE),
        0.05,
        0.15,
        at_least=False,
    )


def _score(generator: np.random.Generator, classifier: _Classifier, score: _Score, images: int) -> Iterator[Figure]:
    truth = float(score.of(classifier.draw(generator, _REFERENCE)).mean())
    yield from _rates(
        f"{score.name}, {images} images of {classifier.name}",
        lambda: score.estimate(classifier.draw(generator, images), CONFIDENCE),
        truth,
        1.25 * truth,
        at_least=False,
    )


def _rise(generator: np.random.Generator, classifier: _Classifier, score: _Score) -> Iterator[Figure]:
    """The candidate is the baseline with sharper logits."""
    reference = classifier.pair(generator, _REFERENCE)
    before = float(score.of(reference.baseline).mean())
    truth = float(score.of(reference.candidate).mean()) - before
    yield from _rates(
        f"{score.name} rise, 500 images of {classifier.name}, sharpened",
        lambda: score.rise(classifier.pair(generator, 500), CONFIDENCE),
        truth,
        truth + 0.1 * before,
        at_least=False,
    )


def _bootstraps(generator: np.random.Generator) -> Iterator[Figure]:
    classifier = CLASSIFIERS[0]
    reference = classifier.draw(generator, _REFERENCE)
    confidence = reference.probabilities.max(axis=1).astype(np.float64)
    f1, error = macro_f1(reference.labels, reference.chosen, 10), calibration_error(confidence, reference.correct)
    for images in (200, 1_000):
        drawn = [classifier.draw(generator, images) for _ in range(BOOTSTRAP_TRIALS)]
        # 90 % between the bounds leave 5 % beyond each
        above = [macro_f1_interval(one, 0.9).low > f1 for one in drawn]
        yield rate_figure(f"Macro-F1 by bootstrap, {images} images: true value below the interval", above, None)
        found = [calibration_error_interval(one, 0.9) for one in drawn]
        title = f"calibration error by bootstrap, {images} images: true value"
        yield rate_figure(f"{title} below the interval", [one.low > error for one in found], None)
        yield rate_figure(f"{title} above the interval", [one.high < error for one in found], None)


def _rates(name: str, draw: Callable[[], Estimate], truth: float, easier: float, *, at_least: bool) -> Iterator[Figure]:
    """False passes of a limit that is truly just met, and passes of one that leaves room."""
    drawn = [draw() for _ in range(TRIALS)]
    passed = [verdict_of(one, truth, at_least=at_least) is Verdict.PASS for one in drawn]
    yield rate_figure(f"{name}: false pass at the limit", passed, 1 - CONFIDENCE)
    passed = [verdict_of(one, easier, at_least=at_least) is Verdict.PASS for one in drawn]
    yield rate_figure(f"{name}: pass, limit {easier:.3g} and truth {truth:.3g}", passed, None)


def rate_figure(name: str, outcomes: Sequence[bool] | float, nominal: float | None, trials: int = TRIALS) -> Figure:
    """A rate in percent; three standard errors of the simulation above the nominal rate are chance."""
    must = None if nominal is None else 100 * (nominal + 3 * (nominal * (1 - nominal) / trials) ** 0.5)
    return Figure(name=name, value=100 * float(np.mean(outcomes)), better="lower", must=must, unit="%")


def _choosing(labels: NDArray[np.int64], chosen: NDArray[np.int64]) -> ScoredImages:
    size = int(labels.max()) + 1
    return ScoredImages(np.eye(size, dtype=np.float32)[chosen], labels, tuple(map(str, range(size))))
