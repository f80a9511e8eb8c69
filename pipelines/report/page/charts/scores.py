"""How well each class is told from the others, and how far probabilities can be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from ecd_deploy.pipelines.report.page.calibration import Bin
from ecd_deploy.pipelines.report.page.charts.axes import (
    OTHER_COLOURS,
    STUDENT_COLOUR,
    TEACHER_COLOUR,
    WIDTH,
    Marker,
    Panel,
    Scale,
    mark,
    shortened,
    svg,
    text,
    text_width,
)
from ecd_deploy.pipelines.report.page.classes import ClassRow

_MOST_CLASSES = 20
_ROW_HEIGHT = 40.0
_TOP = 34.0
_RIGHT = WIDTH - 20
_SCORES: Final[tuple[tuple[str, str, Marker], ...]] = (
    ("recall", STUDENT_COLOUR, "circle"),
    ("precision", TEACHER_COLOUR, "square"),
    ("F1", OTHER_COLOURS[0], "diamond"),
)
_BAR_WIDTH = 3.0


def class_scores(rows: Sequence[ClassRow]) -> str:
    """Recall, precision and F1 of each class with their intervals, the lowest F1 first; of many classes the lowest."""
    shown = sorted(rows, key=lambda row: row.f1.value if row.f1 else 0.0)[:_MOST_CLASSES]
    names = [shortened(row.name) for row in shown]
    left, bottom = 20 + max(map(text_width, names), default=0), _TOP + _ROW_HEIGHT * len(shown)
    lows = [score.low for row in shown for score in (row.recall, row.precision, row.f1) if score is not None]
    least = min(math.floor(10 * min(lows, default=0)) * 10, 90)
    panel = Panel(Scale(least, 100, left, _RIGHT), Scale(len(shown) - 0.5, -0.5, bottom, _TOP))
    lowest = f"; the {len(shown)} lowest" if len(shown) < len(rows) else ""
    parts = [panel.frame(f"%, with 95% intervals{lowest}", y_ticks=False)]
    parts += [text(left - 8, panel.y.place(place) + 5, name, anchor="end") for place, name in enumerate(names)]
    for number, (name, colour, marker) in enumerate(_SCORES):
        at, offset = left + 110 * number, 0.22 * (number - 1)
        parts += [mark(at + 6, 12, colour, marker), text(at + 16, 17, name)]
        for place, row in enumerate(shown):
            score = (row.recall, row.precision, row.f1)[number]
            if score is not None:
                height = place + offset
                parts.append(panel.line((100 * score.low, 100 * score.high), (height, height), colour))
                parts.append(panel.points((100 * score.value,), (height,), colour, marker))
    return svg(bottom + 50, parts)


def reliability_diagram(bins: Sequence[Bin]) -> str:
    """Accuracy over confidence with intervals, and how many images have which confidence."""
    confidence = Scale(0, 100, 70, _RIGHT)
    accuracy = Panel(confidence, Scale(0, 100, 250, 10))
    most = max((one.images for one in bins), default=1)
    count = Panel(confidence, Scale(0, 1.05 * most, 370, 280))
    parts = [
        accuracy.frame("", "accuracy, %", x_ticks=False),
        accuracy.line((0, 100), (0, 100), "currentColor", width=1, dash="2 4"),
        count.frame("confidence, %", "images"),
    ]
    for one in bins:
        at = 100 * one.confidence
        parts.append(accuracy.line((at, at), (100 * one.accuracy.low, 100 * one.accuracy.high), STUDENT_COLOUR))
        parts.append(accuracy.points((at,), (100 * one.accuracy.value,), STUDENT_COLOUR))
        parts.append(count.bar(at, one.images, _BAR_WIDTH, STUDENT_COLOUR))
    return svg(418, parts)
