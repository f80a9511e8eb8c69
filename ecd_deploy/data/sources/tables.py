"""Tables that name image files: CSV, with the columns path and label, and others."""

from __future__ import annotations

import csv
import os
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from ecd_deploy.data.imagefolder.listing import Listing, Listings, printable, require_same_classes
from ecd_deploy.errors import DataError

PATH: Final = "path"
LABEL: Final = "label"
SPLIT: Final = "split"

Split = Literal["train", "validation", "test"]
SPLITS: Final[Mapping[str, Split]] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""What a table may call the splits."""


@dataclass(frozen=True)
class LabelledRows:
    """The rows of a table.

    Attributes:
        source: the table's file.
        paths: of the image files, as the table has them: relative to its folder, or absolute; each once.
        labels: names of their classes, with accents composed (NFC).
        columns: the values of every other column, by its name.
    """

    source: Path
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]]

    def files(self) -> tuple[Path, ...]:
        """Where the images are."""
        return tuple(self.source.parent / path for path in self.paths)

    def select(self, places: Sequence[int]) -> LabelledRows:
        """The rows at these places."""
        columns = {name: tuple(values[place] for place in places) for name, values in self.columns.items()}
        paths, labels = (tuple(values[place] for place in places) for values in (self.paths, self.labels))
        return LabelledRows(self.source, paths, labels, columns)

    @classmethod
    def joined(cls, source: Path, parts: Sequence[LabelledRows]) -> LabelledRows:
        """The rows of parts of one table, which have the same columns."""
        return cls(
            source,
            tuple(path for part in parts for path in part.paths),
            tuple(label for part in parts for label in part.labels),
            {name: tuple(value for part in parts for value in part.columns[name]) for name in parts[0].columns},
        )


def read_csv(path: Path) -> LabelledRows:
    """Read a CSV file in UTF-8 whose first line names its columns.

    Raises:
        DataError: it cannot be read, a column is missing, or a row cannot be used.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header)
            rows = [_row(path, reader.line_num, row, header) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV file in UTF-8: {error}") from error
    if not rows:
        raise DataError(f"{path} names no images")
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    names, labels = columns.pop(PATH), columns.pop(LABEL)
    if len(set(names)) != len(names):
        ((twice, _),) = Counter(names).most_common(1)
        raise DataError(f"{path} names {printable(twice)} twice")
    return LabelledRows(path, names, tuple(unicodedata.normalize("NFC", label) for label in labels), columns)


def class_labels(where: str, values: Sequence[Any], names: Sequence[str] | None) -> tuple[str, ...]:
    """The labels of a column: its values, or the names that they number.

    Raises:
        DataError: at `where`, a label is missing or is no number of a name.
    """
    labels = []
    for row, value in enumerate(values):
        known = value is not None and (names is None or (isinstance(value, int) and 0 <= value < len(names)))
        if not known:
            raise DataError(f"{where}, row {row}: label {value!r} is no class")
        labels.append(unicodedata.normalize("NFC", str(value if names is None else names[value])))
    return tuple(labels)


def list_table(rows: LabelledRows) -> Listings:
    """The files of each split, by class and then by path, as those of a folder are.

    Raises:
        DataError: there is no column split, or it has other values, or a split is missing or has other classes.
    """
    if SPLIT not in rows.columns:
        columns = ", ".join(map(printable, (PATH, LABEL, *rows.columns)))
        raise DataError(
            f"{rows.source} has no column 'split', which says train, validation or test of each image; its columns are "
            f"{columns}"
        )
    splits = [_split(rows.source, value) for value in rows.columns[SPLIT]]
    for needed in ("train", "test"):
        if needed not in splits:
            raise DataError(f"{rows.source} has no image whose split is {needed}")
    files = tuple(file.absolute() for file in rows.files())
    root = Path(os.path.commonpath([file.parent for file in files]))
    found: dict[Split, Listing] = {
        split: _listing(root, rows, files, [place for place, value in enumerate(splits) if value == split])
        for split in dict.fromkeys(splits)
    }
    for split, listing in found.items():
        if split != "train":
            classes = {"train": found["train"].classes, split: listing.classes}
            require_same_classes(f"the classes of {rows.source}", classes)
    if len(found["train"].classes) == 1:
        raise DataError(f"{rows.source} has one class only, {found['train'].classes[0]}: two or more are needed")
    return Listings(root, found["train"], found.get("validation"), found["test"])


def _listing(root: Path, rows: LabelledRows, files: Sequence[Path], places: Sequence[int]) -> Listing:
    """The rows at these places."""
    ordered = sorted(places, key=lambda place: (rows.labels[place], str(files[place])))
    part = rows.select(ordered)
    classes = tuple(sorted(set(part.labels)))
    numbers = {label: number for number, label in enumerate(classes)}
    labels = np.array([numbers[label] for label in part.labels], dtype=np.int64)
    columns = {name: values for name, values in part.columns.items() if name != SPLIT}
    return Listing(root, classes, tuple(files[place] for place in ordered), labels, columns)


def _split(source: Path, value: str) -> Split:
    if value.lower() not in SPLITS:
        raise DataError(f"{source}: split {value!r} is none of {', '.join(SPLITS)}")
    return SPLITS[value.lower()]


def _check_header(path: Path, header: Sequence[str]) -> None:
    found = ", ".join(map(printable, header)) or "none"
    for name in (PATH, LABEL):
        if name not in header:
            raise DataError(f"{path} has no column {name!r} in its first line; its columns are {found}")
    if len(set(header)) != len(header) or not all(header):
        raise DataError(f"{path} has a column without a name or two of one name; its columns are {found}")


def _row(path: Path, line: int, row: list[str], header: Sequence[str]) -> tuple[str, ...]:
    if len(row) != len(header):
        raise DataError(f"{path}, line {line}: {len(row)} values for {len(header)} columns")
    values = tuple(value.strip() for value in row)
    for name in (PATH, LABEL):
        if not values[header.index(name)]:
            raise DataError(f"{path}, line {line}: {name} is empty")
    return values
