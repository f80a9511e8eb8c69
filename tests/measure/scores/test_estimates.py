from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ecd_deploy.measure.scores import drops, estimates
from ecd_deploy.measure.scores.classification import (
    LARGEST_LOG_LOSS,
    brier_scores,
    calibration_error_interval,
    in_top,
    log_losses,
    macro_f1_interval,
)
from ecd_deploy.measure.scores.drops import Pair
from ecd_deploy.measure.scores.estimates import Estimate
from ecd_deploy.measure.scores.scored import ScoredImages, softmax
from tests.measure.scored_images import scored, with_right


def random_images(count: int = 400, size: int = 7, seed: int = 0) -> ScoredImages:
    generator = np.random.default_rng(seed)
    labels = generator.integers(size, size=count)
    logits = generator.normal(size=(count, size)) + 2 * np.eye(size)[labels]
    return ScoredImages(softmax(logits.astype(np.float32)), labels, tuple("abcdefghij"[:size]))


def test_scores_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    images = random_images()
    labels, chosen, probabilities = images.labels, images.chosen, images.probabilities.astype(np.float64)
    assert estimates.top1(images, 0.95).value == metrics.accuracy_score(labels, chosen)
    assert estimates.balanced_accuracy(images, 0.95).value == pytest.approx(
        metrics.balanced_accuracy_score(labels, chosen)
    )
    assert in_top(images).mean() == metrics.top_k_accuracy_score(labels, probabilities, k=5)
    assert log_losses(images).mean() == pytest.approx(
        metrics.log_loss(labels, probabilities / probabilities.sum(axis=1, keepdims=True)), abs=1e-6
    )
    found = macro_f1_interval(images, 0.95)
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(metrics.f1_score(labels, chosen, average="macro"))
    recalls = metrics.recall_score(labels, chosen, average=None)
    precisions = metrics.precision_score(labels, chosen, average=None)
    assert estimates.worst_recall(images, 0.95).value == pytest.approx(min(recalls))
    for index in range(7):
        assert estimates.class_recall(images, index, 0.95).value == pytest.approx(recalls[index])
        assert estimates.class_precision(images, index, 0.95).value == pytest.approx(precisions[index])


def test_brier_and_calibration_error_of_a_hand_s_breadth() -> None:
    images = scored([0, 1, 1], [0, 1, 0], ("a", "b"), confidence=0.8)
    assert brier_scores(images) == pytest.approx([0.08, 0.08, 1.28], abs=1e-6)
    assert calibration_error_interval(images, 0.95).value == pytest.approx(0.8 - 2 / 3, abs=1e-6)


def test_what_is_not_a_number_is_the_worst_that_there_is() -> None:
    images = scored([0, 1], [-1, 1], ("a", "b"))
    assert brier_scores(images)[0] == 2.0
    assert log_losses(images)[0] == pytest.approx(LARGEST_LOG_LOSS)
    assert in_top(images).tolist() == [False, True]
    assert softmax(np.array([[0.0, np.inf]], np.float32)).tolist()[0] == pytest.approx([math.nan] * 2, nan_ok=True)


def test_equal_probabilities_put_no_label_among_the_first_five() -> None:
    images = ScoredImages(np.full((1, 10), 0.1, np.float32), np.zeros(1, np.int64), tuple("abcdefghij"))
    assert not in_top(images).any()


def test_the_worst_class_has_the_least_of_the_exact_bounds() -> None:
    images = with_right([18, 45, 30], [20, 50, 40])
    found = estimates.worst_recall(images, 0.95)
    bounds = [stats.beta.ppf(0.05, right, of - right + 1) for right, of in ((18, 20), (45, 50), (30, 40))]
    assert found.value == 0.75
    assert found.bound == pytest.approx(min(bounds))
    assert "class 2, 30 of 40" in found.note


def test_a_low_class_among_many_is_no_proof_that_one_misses() -> None:
    """Of 100 classes that are all truly at 0.9, the worst of 20 images each is near 0.7."""
    generator = np.random.default_rng(1)
    right = generator.binomial(20, 0.9, size=100)
    found = estimates.worst_recall(with_right(right.tolist(), [20] * 100), 0.95)
    assert found.value < 0.8
    assert found.misses is not None
    assert not found.misses(0.85)
    assert found.misses(0.99)


def test_drops_are_paired_by_class() -> None:
    classes, labels = ("a", "b"), [0] * 100 + [1] * 100
    before = scored(labels, labels, classes)
    after = scored(labels, [1] * 10 + [0] * 90 + [1] * 100, classes)
    pair = Pair(after, before)
    assert drops.top1_drop(pair, 0.95).value == pytest.approx(0.05)
    assert drops.balanced_accuracy_drop(pair, 0.95).value == pytest.approx(0.05)
    worst = drops.worst_recall_drop(pair, 0.95)
    assert worst.value == pytest.approx(0.1)
    assert worst.bound == drops.class_recall_drop(pair, 0, 0.95).bound
    assert "a, 10 lost and 0 gained of 100" in worst.note
    assert drops.class_precision_drop(pair, 1, 0.95).value == pytest.approx(10 / 110)
    assert drops.brier_rise(pair, 0.95).value > 0
    assert drops.log_loss_rise(Pair(before, before), 0.95).value == 0.0


@pytest.mark.parametrize(
    ("estimate", "limit", "at_least"),
    [
        (estimates.share(480, 500, 0.95), 0.955, True),
        (drops.paired_drop(3, 2, 500, 0.95), 0.005, False),
        (estimates.balanced_accuracy(random_images(), 0.95), 0.76, True),
        (estimates.worst_recall(random_images(), 0.95), 0.65, True),
        (estimates.brier(random_images(), 0.95), 0.41, False),
        (estimates.log_loss(random_images(), 0.95), 0.9, False),
    ],
)
def test_the_images_that_would_decide_are_just_enough(estimate: Estimate, limit: float, *, at_least: bool) -> None:
    sign = 1 if at_least else -1
    enough = estimate.images_that_decide(limit, at_least=at_least)
    assert enough is not None
    assert enough > estimate.images
    assert sign * estimate.bound_of(enough / estimate.images) >= sign * limit
    assert sign * estimate.bound_of(0.98 * enough / estimate.images) < sign * limit


def test_no_number_of_images_decides_a_limit_that_is_missed() -> None:
    assert estimates.share(480, 500, 0.95).images_that_decide(0.96, at_least=True) is None
    assert estimates.share(480, 500, 0.95).images_that_decide(0.97, at_least=True) is None


@pytest.mark.parametrize(
    "of",
    [estimates.top1, estimates.balanced_accuracy, estimates.worst_recall, estimates.top5, estimates.brier],
)
def test_no_images_have_no_figure(of: object) -> None:
    empty = ScoredImages(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), ("a", "b", "c"))
    found = of(empty, 0.95)  # type: ignore[operator]
    assert math.isnan(found.value)
    assert "there are no" in found.note


def test_a_class_without_images_is_named() -> None:
    images = scored([0, 0, 2], [0, 0, 2])
    for found in (estimates.balanced_accuracy(images, 0.95), estimates.worst_recall(images, 0.95)):
        assert found.note == "there are no images of b"
    assert estimates.class_recall(images, 1, 0.95).note == "there are no such images"
