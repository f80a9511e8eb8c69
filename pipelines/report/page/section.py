"""The parts of a page before it is Markdown or HTML."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: as shown.
        sort: what the column is sorted by, if not the text.
        kind: `pass`, `fail` or `inconclusive` for a verdict, else empty.
    """

    text: str
    sort: float | None = None
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a caption that says what its rows are."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Sample:
    """A test image as a data address, with what it is and what the student takes it for."""

    address: str
    true: str
    chosen: str

    @property
    def correct(self) -> bool:
        """Whether the student is right."""
        return self.true == self.chosen


@dataclass(frozen=True)
class Section:
    """One heading with what stands below it; `anchor` also names its chart."""

    anchor: str
    title: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    commands: str = ""
    samples: tuple[Sample, ...] = ()
