"""How students came to their accuracy, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from ecd_deploy.pipelines.report.page.charts.axes import (
    LINE_HEIGHT,
    OTHER_COLOURS,
    STUDENT_COLOUR,
    TEACHER_COLOUR,
    WIDTH,
    Panel,
    polyline,
    scale_of,
    shortened,
    svg,
    text,
)
from ecd_deploy.training import EpochRecord

_HEIGHT = 250.0
_LEFT = 62.0
_GAP = 20.0
_DASHED = "7 5"
_OTHER_DASHES = (_DASHED, "9 4 2 4", "2 4")


@dataclass(frozen=True)
class Curve:
    """One run's epochs, under a name for the legend."""

    name: str
    epochs: Sequence[EpochRecord]


@dataclass(frozen=True)
class _Line:
    """A value of each epoch and how it is drawn."""

    name: str
    epochs: tuple[float, ...]
    values: tuple[float, ...]
    colour: str
    dash: str = ""


def training_curves(epochs: Sequence[EpochRecord]) -> str:
    """Validation top-1 and loss by epoch, of the student and of its teacher if there is one.

    Without a validation split, the loss alone.
    """
    student, teacher = Curve("student", epochs), Curve("teacher", epochs)
    return _picture(
        [
            *_line(student, _percent(entry.validation_top1 for entry in epochs), STUDENT_COLOUR),
            *_line(teacher, _percent(entry.teacher_validation_top1 for entry in epochs), TEACHER_COLOUR, _DASHED),
        ],
        [
            *_line(student, [entry.student_loss for entry in epochs], STUDENT_COLOUR),
            *_line(teacher, [entry.teacher_loss for entry in epochs], TEACHER_COLOUR, _DASHED),
        ],
    )


def compared_curves(first: Curve, others: Sequence[Curve]) -> str:
    """Validation top-1 and loss by epoch of the students of several runs, told apart by colour and by line.

    Runs without a validation split have the loss alone.
    """
    accuracy, loss = list[_Line](), list[_Line]()
    looks = [(STUDENT_COLOUR, ""), *islice(zip(cycle(OTHER_COLOURS), cycle(_OTHER_DASHES), strict=False), len(others))]
    for curve, look in zip((first, *others), looks, strict=True):
        accuracy += _line(curve, _percent(entry.validation_top1 for entry in curve.epochs), *look)
        loss += _line(curve, [entry.student_loss for entry in curve.epochs], *look)
    return _picture(accuracy, loss)


def _line(curve: Curve, values: Sequence[float | None], colour: str, dash: str = "") -> list[_Line]:
    """One line; none where an epoch has no value, or one that is not finite."""
    found = tuple(value for value in values if value is not None and math.isfinite(value))
    epochs = tuple(float(entry.epoch) for entry in curve.epochs)
    return [_Line(curve.name, epochs, found, colour, dash)] if found and len(found) == len(epochs) else []


def _picture(accuracy: Sequence[_Line], loss: Sequence[_Line]) -> str:
    drawn = [(label, lines) for label, lines in (("validation top-1, %", accuracy), ("cross-entropy", loss)) if lines]
    width = WIDTH / max(len(drawn), 1)
    parts = [_panel(label, lines, place * width, width) for place, (label, lines) in enumerate(drawn)]
    return svg(_HEIGHT + LINE_HEIGHT * max(len(accuracy), len(loss)), parts)


def _panel(label: str, lines: Sequence[_Line], start: float, width: float) -> str:
    left, bottom = start + _LEFT, _HEIGHT - 50
    x = scale_of((epoch for line in lines for epoch in line.epochs), left, start + width - _GAP, whole=True)
    panel = Panel(x, scale_of((value for line in lines for value in line.values), bottom, 10))
    parts = [panel.frame("epoch", label)]
    for row, line in enumerate(lines):
        parts.append(panel.line(line.epochs, line.values, line.colour, dash=line.dash))
        if len(line.epochs) == 1:
            parts.append(panel.points(line.epochs, line.values, line.colour))
        at = _HEIGHT + LINE_HEIGHT * row
        parts.append(polyline(((left, at), (left + 30, at)), line.colour, dash=line.dash))
        parts.append(text(left + 38, at + 5, shortened(line.name)))
    return "".join(parts)


def _percent(fractions: Iterable[float | None]) -> list[float | None]:
    return [None if fraction is None else 100 * fraction for fraction in fractions]
