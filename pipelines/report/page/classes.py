"""Which classes a student gets right, and which it takes for which."""

from __future__ import annotations

import numpy as np

from ecd_deploy.measure.classification import confusion_counts
from ecd_deploy.measure.statistics import accuracy_interval
from ecd_deploy.pipelines.record.predictions import StoredPredictions
from ecd_deploy.pipelines.report.page.section import Cell, Section, Table

_MOST_CONFUSIONS = 20
_LARGEST_MATRIX = 20


def class_section(predictions: StoredPredictions) -> Section:
    """Accuracy of each class, the most frequent confusions and, for few classes, the whole confusion matrix."""
    tables = [_accuracies(predictions), _confusions(predictions)]
    if len(predictions.classes) <= _LARGEST_MATRIX:
        tables.append(_matrix(predictions))
    text = "The ONNX student on the whole test set."
    return Section("classes", "Classes", text, tuple(tables))


def _accuracies(predictions: StoredPredictions) -> Table:
    rows = []
    for index, name in enumerate(predictions.classes):
        of_class = predictions.labels == index
        images, correct = int(of_class.sum()), int((of_class & predictions.correct).sum())
        if images == 0:
            rows.append((Cell(name), Cell("no images"), Cell("-"), Cell("0", 0)))
            continue
        low, high = accuracy_interval(correct, images, 0.95)
        rows.append(
            (
                Cell(name),
                Cell(f"{correct / images:.1%}", correct / images),
                Cell(f"{low:.1%} to {high:.1%}", low),
                Cell(str(images), images),
            )
        )
    return Table("Accuracy by class", ("class", "top-1", "95% interval", "images"), tuple(rows))


def _confusions(predictions: StoredPredictions) -> Table:
    counts = confusion_counts(predictions)
    np.fill_diagonal(counts, 0)
    order = np.argsort(counts, axis=None, kind="stable")[::-1][:_MOST_CONFUSIONS]
    pairs = [divmod(int(flat), len(predictions.classes)) for flat in order]
    rows = tuple(
        (
            Cell(predictions.classes[true]),
            Cell(predictions.classes[chosen]),
            Cell(str(counts[true, chosen]), int(counts[true, chosen])),
        )
        for true, chosen in pairs
        if counts[true, chosen]
    )
    return Table("Most frequent confusions", ("class", "taken for", "images"), rows)


def _matrix(predictions: StoredPredictions) -> Table:
    counts = confusion_counts(predictions)
    rows = tuple(
        (Cell(name), *(Cell(str(count) if count else ".", int(count)) for count in row))
        for name, row in zip(predictions.classes, counts, strict=True)
    )
    return Table("Images by class (rows) and choice (columns)", ("class", *predictions.classes), rows)
