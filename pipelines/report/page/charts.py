"""Charts as SVG text that takes its text colour from the page, so that one picture fits light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import cycle, islice

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from ecd_deploy.pipelines.report.page.calibration import Bin
from ecd_deploy.pipelines.report.page.classes import ClassRow
from ecd_deploy.training import EpochRecord

# Replaced by `currentColor` in the SVG; a colour that nothing else uses.
_TEXT_COLOUR = "#010203"
STUDENT_COLOUR = "#2f7fd1"
TEACHER_COLOUR = "#d0691b"
_OTHER_COLOURS = ("#2a8f5b", "#a05bc0", "#b0872b", "#c2447a")
_OTHER_STYLES = ("--", "-.", ":")
_LONGEST_NAME = 20
_MOST_CLASSES = 20
_SCORES = (("recall", STUDENT_COLOUR, "o"), ("precision", TEACHER_COLOUR, "s"), ("F1", _OTHER_COLOURS[0], "D"))


@dataclass(frozen=True)
class Curve:
    """One run's epochs, under a name for the legend."""

    name: str
    epochs: Sequence[EpochRecord]


def training_curves(epochs: Sequence[EpochRecord]) -> str:
    """Validation top-1 and loss by epoch, of the student and of its teacher if there is one.

    Without a validation split, the loss alone.
    """
    with _style():
        figure, accuracy, loss = _charts(epochs)
        student = _percent(entry.validation_top1 for entry in epochs)
        teacher = _percent(entry.teacher_validation_top1 for entry in epochs)
        _curve(accuracy, epochs, student, "student", STUDENT_COLOUR)
        _curve(loss, epochs, [entry.student_loss for entry in epochs], "student", STUDENT_COLOUR)
        _curve(accuracy, epochs, teacher, "teacher", TEACHER_COLOUR, "--")
        _curve(loss, epochs, [entry.teacher_loss for entry in epochs], "teacher", TEACHER_COLOUR, "--")
        return _finished(figure, accuracy, loss, "training")


def compared_curves(first: Curve, others: Sequence[Curve]) -> str:
    """Validation top-1 and loss by epoch of the students of several runs, told apart by colour and by line.

    Runs without a validation split have the loss alone.
    """
    with _style():
        figure, accuracy, loss = _charts([entry for curve in (first, *others) for entry in curve.epochs])
        looks = zip(cycle(_OTHER_COLOURS), cycle(_OTHER_STYLES), strict=False)
        for curve, (colour, style) in zip(
            (first, *others), ((STUDENT_COLOUR, "-"), *islice(looks, len(others))), strict=True
        ):
            top1 = _percent(entry.validation_top1 for entry in curve.epochs)
            _curve(accuracy, curve.epochs, top1, curve.name, colour, style)
            _curve(loss, curve.epochs, [entry.student_loss for entry in curve.epochs], curve.name, colour, style)
        return _finished(figure, accuracy, loss, "compared")


def latency_distribution(samples_ms: Sequence[float], marks: Sequence[tuple[str, float]]) -> str:
    """Share of runs that took no longer than each latency, with percentiles marked."""
    with _style():
        figure = Figure(figsize=(8, 2.8), layout="constrained")
        axes = figure.subplots()
        axes.ecdf(list(samples_ms), color=STUDENT_COLOUR, linewidth=2)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        for name, value in marks:
            axes.axvline(value, color=_TEXT_COLOUR, linewidth=0.8, linestyle=":")
            axes.annotate(name, (value, 0.02), textcoords="offset points", xytext=(3, 0), fontsize=9)
        axes.set_xlabel("milliseconds, logarithmic")
        axes.set_ylabel("share of runs")
        return _svg(figure, "latency")


def class_scores(rows: Sequence[ClassRow]) -> str:
    """Recall, precision and F1 of each class with their intervals, the lowest F1 first; of many classes the lowest."""
    with _style():
        shown = sorted(rows, key=lambda row: row.f1.value if row.f1 else 0.0)[:_MOST_CLASSES]
        figure = Figure(figsize=(8, 1.2 + 0.42 * len(shown)), layout="constrained")
        axes = figure.subplots()
        for offset, (name, colour, marker) in zip((-0.22, 0.0, 0.22), _SCORES, strict=True):
            for place, row in enumerate(shown):
                score = {"recall": row.recall, "precision": row.precision, "F1": row.f1}[name]
                if score is not None:
                    axes.hlines(place + offset, 100 * score.low, 100 * score.high, color=colour, linewidth=1.5)
                    axes.plot(100 * score.value, place + offset, marker, color=colour, markersize=5)
            axes.plot([], [], marker, color=colour, label=name)
        axes.set_yticks(range(len(shown)), [_label(row.name) for row in shown])
        axes.invert_yaxis()
        axes.set_xlabel("%, with 95% intervals" + (f"; the {len(shown)} lowest" if len(shown) < len(rows) else ""))
        axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
        return _svg(figure, "classes")


def reliability_diagram(bins: Sequence[Bin]) -> str:
    """Accuracy over confidence with intervals, and how many images have which confidence."""
    with _style():
        figure = Figure(figsize=(8, 4), layout="constrained")
        accuracy, count = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        places = [100 * one.confidence for one in bins]
        accuracy.plot([0, 100], [0, 100], ":", color=_TEXT_COLOUR, linewidth=0.8)
        accuracy.vlines(
            places, [100 * one.accuracy.low for one in bins], [100 * one.accuracy.high for one in bins],
            color=STUDENT_COLOUR, linewidth=1.5,
        )  # fmt: skip
        accuracy.plot(places, [100 * one.accuracy.value for one in bins], "o", color=STUDENT_COLOUR, markersize=5)
        count.bar(places, [one.images for one in bins], width=3, color=STUDENT_COLOUR)
        accuracy.set_ylabel("accuracy, %")
        count.set_ylabel("images")
        count.set_xlabel("confidence, %")
        return _svg(figure, "calibration")


def _style() -> AbstractContextManager[None]:
    return mpl.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "ecd-deploy",
            "font.family": "sans-serif",
            "font.size": 11,
            "text.color": _TEXT_COLOUR,
            "axes.labelcolor": _TEXT_COLOUR,
            "axes.edgecolor": _TEXT_COLOUR,
            "xtick.color": _TEXT_COLOUR,
            "ytick.color": _TEXT_COLOUR,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )


def _label(name: str) -> str:
    """A name as a legend shows it: short, and without what matplotlib gives a meaning."""
    short = name if len(name) <= _LONGEST_NAME else f"...{name[-_LONGEST_NAME:]}"
    return (" " * short.startswith("_") + short).replace("$", r"\$")


def _charts(epochs: Sequence[EpochRecord]) -> tuple[Figure, Axes | None, Axes]:
    """A figure with a chart for accuracy, None if no epoch has any, and one for the loss."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    if all(entry.validation_top1 is None for entry in epochs):
        return figure, None, figure.subplots()
    accuracy, loss = figure.subplots(1, 2)
    return figure, accuracy, loss


def _finished(figure: Figure, accuracy: Axes | None, loss: Axes, name: str) -> str:
    loss.set_ylabel("cross-entropy")
    if accuracy is not None:
        accuracy.set_ylabel("validation top-1, %")
    for axes in (loss,) if accuracy is None else (accuracy, loss):
        axes.set_xlabel("epoch")
        axes.legend(frameon=False)
    return _svg(figure, name)


def _curve(
    axes: Axes | None,
    epochs: Sequence[EpochRecord],
    values: Sequence[float | None],
    label: str,
    colour: str,
    style: str = "-",
) -> None:
    """Draw a value of each epoch; nothing where an epoch has none."""
    present = [value for value in values if value is not None]
    if axes is None or len(present) < len(epochs):
        return
    marker = "o" if len(epochs) == 1 else ""
    axes.plot(
        [entry.epoch for entry in epochs], present, style, label=_label(label), color=colour, linewidth=2, marker=marker
    )


def _percent(fractions: Iterable[float | None]) -> list[float | None]:
    return [None if fraction is None else 100 * fraction for fraction in fractions]


def _svg(figure: Figure, name: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_TEXT_COLOUR, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Matplotlib numbers its parts from one in every figure, but an id may stand only once on a page.
    text = re.sub(r'(?<= )id="', f'id="{name}-', text)
    text = re.sub(r'(url\(|xlink:href=")#', rf"\1#{name}-", text)
    # The page scales it: its own size in points would overflow a phone. What is around it carries the label.
    return re.sub(
        r'<svg (.*?)width="[\d.]+pt" height="[\d.]+pt"', r'<svg aria-hidden="true" \1', text, count=1, flags=re.DOTALL
    )
