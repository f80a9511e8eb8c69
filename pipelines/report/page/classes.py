"""Which classes a student gets right, and which it takes for which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecd_deploy.measure.scores.classification import (
    Interval,
    chosen_by_class,
    confusion_counts,
    correct_by_class,
    images_by_class,
)
from ecd_deploy.measure.scores.scored import ScoredImages
from ecd_deploy.measure.statistics import accuracy_interval
from ecd_deploy.pipelines.report.page.section import Cell, Section, Table

_MOST_CONFUSIONS = 20
_LARGEST_MATRIX = 20
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class ClassRow:
    """A class and how well it is told from the others; None where nothing can be said."""

    name: str
    images: int
    recall: Interval | None
    precision: Interval | None
    f1: Interval | None


def class_section(images: ScoredImages, file: str) -> Section:
    """Scores of each class, the most frequent confusions and, for few classes, the whole confusion matrix."""
    tables = [_scores(class_rows(images)), _confusions(images)]
    if len(images.classes) <= _LARGEST_MATRIX:
        tables.append(_matrix(images))
    text = (
        f"{file} on the whole test set. Recall is the share of a class's images that are recognised, "
        "precision the share of the images taken for it that are of it, F1 their harmonic mean, each with its exact "
        "95% interval."
    )
    return Section("classes", "Classes", text, tables=tuple(tables))


def class_rows(images: ScoredImages) -> tuple[ClassRow, ...]:
    """The scores of each class, in their order."""
    counts = zip(
        images.classes,
        images_by_class(images).tolist(),
        chosen_by_class(images).tolist(),
        correct_by_class(images).tolist(),
        strict=True,
    )
    return tuple(
        ClassRow(
            name, total, share_interval(right, total), share_interval(right, chosen), _f1(right, total + chosen - right)
        )
        for name, total, chosen, right in counts
    )


def share_interval(correct: int, images: int) -> Interval | None:
    """The share of images that are correct in its exact 95% interval; None where there are no images."""
    if not images:
        return None
    return Interval(correct / images, *accuracy_interval(correct, images, _CONFIDENCE))


def _f1(correct: int, either: int) -> Interval | None:
    """F1 is 2 j / (1 + j) of the share j of images correct among those that are of the class or taken for it."""
    found = share_interval(correct, either)
    return found and Interval(*(2 * share / (1 + share) for share in (found.value, found.low, found.high)))


def _scores(rows: tuple[ClassRow, ...]) -> Table:
    cells = tuple(
        (
            Cell(row.name),
            *map(_score, (row.recall, row.precision, row.f1)),
            Cell(str(row.images), row.images),
        )
        for row in rows
    )
    return Table("Recall, precision and F1 by class", ("class", "recall", "precision", "F1", "images"), cells)


def _score(found: Interval | None) -> Cell:
    if found is None:
        return Cell("-")
    return Cell(f"{found.value:.1%} ({100 * found.low:.1f} to {100 * found.high:.1f})", found.value)


def _confusions(images: ScoredImages) -> Table:
    counts = confusion_counts(images)
    np.fill_diagonal(counts, 0)
    order = np.argsort(counts, axis=None, kind="stable")[::-1][:_MOST_CONFUSIONS]
    pairs = [divmod(int(flat), len(images.classes)) for flat in order]
    rows = tuple(
        (
            Cell(images.classes[true]),
            Cell(images.classes[chosen]),
            Cell(str(counts[true, chosen]), int(counts[true, chosen])),
        )
        for true, chosen in pairs
        if counts[true, chosen]
    )
    return Table("Most frequent confusions", ("class", "taken for", "images"), rows)


def _matrix(images: ScoredImages) -> Table:
    counts = confusion_counts(images)
    rows = tuple(
        (Cell(name), *(Cell(str(count) if count else ".", int(count), shade=_shade(count, row)) for count in row))
        for name, row in zip(images.classes, counts, strict=True)
    )
    return Table("Images by class (rows) and choice (columns)", ("class", *images.classes), rows)


def _shade(count: int, row: np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
    return round(float(count) / max(int(row.sum()), 1), 2)
