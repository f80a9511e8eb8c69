from __future__ import annotations

import math

import pytest

from ecd_deploy.measure.scores.drops import PAIRED, Pair, top1_drop
from ecd_deploy.measure.scores.estimates import OWN
from ecd_deploy.measure.scores.power import power
from ecd_deploy.measure.statistics import accuracy_lower_bound, drop_upper_bound
from tests.measure.scored_images import scored, with_right

TOP5 = {"min_top5", "max_top5_drop"}
OF_CLASSES = {"min_balanced_accuracy", "min_class_recall", "max_balanced_accuracy_drop", "max_class_recall_drop"}


def test_the_strictest_limits_are_those_of_a_student_without_a_mistake_or_a_change() -> None:
    found = power(with_right([190, 180], [200, 200]), None, 0.95)
    limits = {limit.name: limit for limit in found.limits}
    assert set(limits) == {*OWN, *PAIRED} - TOP5
    assert limits["min_top1"].best == pytest.approx(accuracy_lower_bound(400, 400, 0.95))
    assert limits["min_class_recall"].best == pytest.approx(accuracy_lower_bound(200, 200, 0.95))
    assert limits["max_baseline_drop"].best == pytest.approx(drop_upper_bound(0, 0, 400, 0.95))
    assert (found.images, found.disagreement, found.assumed) == (400, 0.03, True)
    for name in {*PAIRED} - TOP5:
        usual = limits[name].usual
        assert usual is not None
        assert usual > limits[name].best


def test_limits_that_can_never_be_decided_are_not_shown() -> None:
    """Of images of six classes there is top-5; the last class has none, and so no recall."""
    labels = [0, 1, 2, 3, 4] * 20
    found = power(scored(labels, labels, tuple("abcdef")), None, 0.95)
    assert {limit.name for limit in found.limits} == {name for name in (*OWN, *PAIRED) if name not in OF_CLASSES}
    assert all(math.isfinite(limit.best) for limit in found.limits)


def test_an_equal_student_passes_the_usual_limit_8_times_in_10() -> None:
    """Of 12 images judged differently, 8 are lost or fewer in 8 cases of 10: a binomial quantile."""
    ours, theirs = with_right([194, 194], [200, 200]), with_right([200, 200], [200, 200])
    found = power(ours, theirs, 0.95)
    assert found.disagreement == 0.03
    (limit,) = [limit for limit in found.limits if limit.name == "max_baseline_drop"]
    assert limit.usual is not None
    assert drop_upper_bound(7, 5, 400, 0.95) <= limit.usual <= drop_upper_bound(8, 4, 400, 0.95)
    assert not found.assumed
    assert top1_drop(Pair(ours, theirs), 0.95).bound > limit.usual  # all 12 lost
