"""The pictures of the page, read back from their SVG."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from ecd_deploy.measure.scores.classification import Interval
from ecd_deploy.pipelines.report.page.calibration import Bin
from ecd_deploy.pipelines.report.page.charts.axes import STUDENT_COLOUR, Scale, scale_of
from ecd_deploy.pipelines.report.page.charts.latency import latency_distribution
from ecd_deploy.pipelines.report.page.charts.scores import class_scores, reliability_diagram
from ecd_deploy.pipelines.report.page.charts.training import Curve, compared_curves, training_curves
from ecd_deploy.pipelines.report.page.classes import ClassRow
from ecd_deploy.training import EpochRecord


def epochs(*losses: float, top1: float | None = None) -> list[EpochRecord]:
    return [
        EpochRecord(epoch=n, step=n, loss=loss, student_loss=loss, learning_rate=0.1, seconds=1.0, validation_top1=top1)
        for n, loss in enumerate(losses, start=1)
    ]


def lines(svg: str, colour: str) -> list[list[tuple[float, float]]]:
    """The pixels of each line of a colour."""
    paths = re.findall(rf'<path d="M([-. 0-9L]*)" fill="none" stroke="{colour}"', svg)
    return [[(float(x), float(y)) for x, y in (point.split() for point in path.split("L"))] for path in paths]


def words(svg: str) -> list[str]:
    """All text of a picture, which must be well-formed and lie within its frame."""
    root = ET.fromstring(svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for x, y in (point for line in lines(svg, STUDENT_COLOUR) for point in line):
        assert 0 <= x <= width
        assert 0 <= y <= height
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.313, 0.314), (-3, 140), (1e-9, 7e-9), (12.2, 98000)])
def test_a_scale_is_linear_and_has_few_round_ticks(low: float, high: float) -> None:
    scale = Scale(low, high, 60, 360)
    values = np.linspace(low, high, 7)
    assert [scale.place(value) for value in values] == pytest.approx(np.linspace(60, 360, 7))
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 6
    assert all(low <= tick <= high for tick in ticks)
    assert all(len(f"{tick:g}") <= 7 for tick in ticks)
    assert np.ptp([after - before for before, after in pairwise(ticks)]) == pytest.approx(0, abs=1e-9 * (high - low))


@pytest.mark.parametrize(("low", "high"), [(0.9, 1.1), (0.02, 900), (1e-4, 5e5), (1.31, 1.32), (3, 30)])
def test_a_logarithmic_scale_gives_each_factor_the_same_room(low: float, high: float) -> None:
    scale = Scale(low, high, 0, 100, logarithmic=True)
    assert [scale.place(value) for value in np.geomspace(low, high, 5)] == pytest.approx([0, 25, 50, 75, 100])
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 11
    assert all(low <= tick <= high for tick in ticks)


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize("value", [1e-4, 1.0, 5000.0])
def test_a_single_value_stands_in_the_middle(value: float, logarithmic: bool) -> None:
    scale = scale_of([value], 0, 100, logarithmic=logarithmic)
    assert scale.place(value) == pytest.approx(50)
    assert scale.ticks()


def test_epochs_are_whole_and_each_loss_stands_at_its_place() -> None:
    svg = training_curves(epochs(4.0, 2.0, 1.0))
    assert "validation top-1, %" not in words(svg)
    assert {"1", "2", "3", "epoch", "student", "cross-entropy"} <= set(words(svg))
    assert "1.5" not in words(svg)[: words(svg).index("epoch")]
    (curve, _), ((x1, y1), (x2, y2), (x3, y3)) = lines(svg, STUDENT_COLOUR), lines(svg, STUDENT_COLOUR)[0]
    assert len(curve) == 3
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y2 - y1 == pytest.approx(2 * (y3 - y2), abs=0.3)
    assert y1 < y2 < y3, "a larger loss stands higher"


def test_one_epoch_is_a_point_and_a_loss_that_is_not_finite_no_line() -> None:
    assert lines(training_curves(epochs(2.0, top1=0.5)), STUDENT_COLOUR)[0][0][0] > 0
    assert "nan" not in training_curves(epochs(2.0, float("nan")))
    assert lines(training_curves(epochs(float("inf"))), STUDENT_COLOUR) == []


def test_names_are_text_whatever_they_are() -> None:
    names = ["<script>", "a&b", '"', "日本" * 30]
    svg = compared_curves(Curve("this", epochs(1.0, 2.0)), [Curve(name, epochs(1.0)) for name in names])
    assert {"this", "<script>", "a&b", '"'} <= set(words(svg))
    rows = [ClassRow(name, 3, Interval(0.5, 0.2, 0.8), None, None) for name in names]
    assert set(names[:3]) < set(words(class_scores(rows)))


def test_of_many_classes_the_lowest_are_drawn_from_the_top() -> None:
    rows = [ClassRow(f"c{n}", 9, None, None, Interval(n / 40, 0, 1)) for n in range(40)]
    shown = [word for word in words(class_scores(rows)) if word.startswith("c")]
    assert shown == [f"c{n}" for n in range(20)]
    assert "%, with 95% intervals; the 20 lowest" in words(class_scores(rows))
    assert words(class_scores([]))


def test_latencies_rise_from_none_to_all() -> None:
    samples = np.random.default_rng(0).lognormal(0, 0.3, 5000).tolist()
    svg = latency_distribution([*samples, 0.0], [("p50", float(np.median(samples))), ("p99", 2.0)])
    assert {"p50", "p99", "milliseconds, logarithmic"} <= set(words(svg))
    (curve,) = lines(svg, STUDENT_COLOUR)
    xs, ys = np.array(curve).T
    assert (np.diff(xs) >= 0).all()
    assert (np.diff(ys) <= 0).all()
    assert len(curve) < 1500
    (middle, _), _ = lines(svg, "currentColor")
    assert ys[xs <= middle[0]].min() == pytest.approx((ys[0] + ys[-1]) / 2, abs=3), "half are below the median"


def test_a_believable_confidence_lies_on_the_diagonal() -> None:
    svg = reliability_diagram([Bin(10, share, Interval(share, share, share)) for share in (0.2, 0.8)])
    ((x0, y0), (x1, y1)), *_ = lines(svg, "currentColor")
    for line in lines(svg, STUDENT_COLOUR):
        for x, y in line:
            assert (x - x0) / (x1 - x0) == pytest.approx((y - y0) / (y1 - y0), abs=0.01)
    assert words(reliability_diagram([]))
