"""The parts of a page before it is Markdown or HTML."""

from __future__ import annotations

from dataclasses import dataclass

from ecd_deploy.measure.statistics import accuracy_interval


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: as shown.
        sort: what the column is sorted by, if not the text.
        kind: `pass`, `fail`, `inconclusive` or `warning` for a verdict, else empty.
        shade: how dark its background is, 0 to 1; None for none.
    """

    text: str
    sort: float | None = None
    kind: str = ""
    shade: float | None = None


def accuracy_cells(correct: int, images: int) -> tuple[Cell, Cell]:
    """The share of images that are correct, and its exact 95% interval."""
    share, (low, high) = correct / images, accuracy_interval(correct, images, 0.95)
    return Cell(f"{share:.2%}", share), Cell(f"{low:.2%} to {high:.2%}", low)


@dataclass(frozen=True)
class Table:
    """A table with a caption that says what its rows are."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def is_numeric(self, column: int) -> bool:
        """Whether a column has numbers, which stand at its right."""
        return any(row[column].sort is not None for row in self.rows)


@dataclass(frozen=True)
class Sample:
    """A test image as a data address, with what it is, what the student takes it for, and how surely, in percent."""

    address: str
    true: str
    chosen: str
    confidence: str = ""

    @property
    def correct(self) -> bool:
        """Whether the student is right."""
        return self.true == self.chosen


@dataclass(frozen=True)
class Section:
    """One heading with what stands below it, a paragraph and a list first; `anchor` also names its chart."""

    anchor: str
    title: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    commands: str = ""
    samples: tuple[Sample, ...] = ()
    points: tuple[str, ...] = ()
