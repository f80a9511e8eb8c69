"""Labelled image files: a folder of class folders, or a table; and their classes against those of a model."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.data.imagefolder.cache import default_cache_folder
from ecd_deploy.data.imagefolder.listing import list_split, printable
from ecd_deploy.data.sources.parquet import read_parquet
from ecd_deploy.data.sources.tables import SPLIT, SPLITS, LabelledRows, read_csv
from ecd_deploy.errors import DataError, UsageError
from ecd_deploy.measure.scores.scored import SliceColumn

_NAMED = 5

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledFiles:
    """Image files with their classes.

    Attributes:
        source: the folder, or the CSV or Parquet file.
        names: of the files, relative to `root` where they lie below it.
        paths: where the files are.
        classes: names, in the order of the labels.
        labels: int64, (N,), in [0, classes).
        slices: the other columns of a table.
    """

    source: Path
    names: tuple[str, ...]
    paths: tuple[Path, ...]
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    slices: tuple[SliceColumn, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, places: NDArray[np.int64]) -> LabelledFiles:
        """The files at these places."""
        slices = tuple(SliceColumn(column.name, _at(column.values, places)) for column in self.slices)
        names, paths = _at(self.names, places), tuple(self.paths[place] for place in places.tolist())
        return LabelledFiles(self.source, names, paths, self.classes, self.labels[places], slices)


def list_images(data: Path) -> LabelledFiles:
    """List `data/CLASS/*`, or the rows of a CSV or Parquet file.

    Raises:
        UsageError: there is none of them, or pyarrow, which reads Parquet, is not installed.
        DataError: a class is empty, there is one only, or a row cannot be used.
    """
    if data.is_dir():
        return _list_folder(data)
    if data.is_file():
        return _list_table(data)
    raise UsageError(f"--data: there is no folder, CSV file or Parquet file {data}")


def match_classes(files: LabelledFiles, expected: tuple[str, ...] | None, outputs: int, model: str) -> LabelledFiles:
    """Number the images' classes as the model's outputs are, by name.

    Where the names of the outputs are not known, they are the images' classes in the order of their names, or, where
    all labels are numbers, those are the outputs' own.

    Args:
        files: the images.
        expected: names of the model's outputs; None if not known.
        outputs: how many the model has.
        model: its name, for the error.

    Raises:
        DataError: the classes are not those of the model.
    """
    if expected is None:
        if numbers := _as_numbers(files.classes, outputs):
            return _numbered(files, tuple(map(str, range(outputs))), numbers)
        if len(files.classes) != outputs:
            raise DataError(
                f"{model} has {outputs} outputs, and {files.source} has images of {len(files.classes)} classes: which "
                "output is which class is not known; name the outputs in the file input.classes, and give images of all"
            )
        return files
    if len(expected) != outputs:
        raise DataError(f"{model} has {outputs} outputs, and {len(expected)} classes are named for it")
    places = {unicodedata.normalize("NFC", name): place for place, name in enumerate(expected)}
    differences = [
        f"only {where}: {_some(names)}"
        for where, names in (
            ("in the model", [name for name in places if name not in files.classes]),
            (f"in {files.source}", [name for name in files.classes if name not in places]),
        )
        if names
    ]
    if differences:
        raise DataError(f"the classes of {model} and of the images differ; {'; '.join(differences)}")
    return _numbered(files, expected, [places[name] for name in files.classes])


def _list_folder(folder: Path) -> LabelledFiles:
    listing = list_split(folder)
    if {name.lower() for name in listing.classes} <= SPLITS.keys():
        found = ", ".join(listing.classes)
        raise DataError(f"{folder} holds the splits of a data set ({found}): give one of them, as {folder}/<split>")
    start = len(str(folder / "_")) - 1
    names = tuple(
        str(path)[start:].replace(os.sep, "/") for path in listing.files
    )  # `relative_to` takes ten times as long
    return LabelledFiles(folder, names, listing.files, listing.classes, np.asarray(listing.labels, dtype=np.int64))


def _list_table(path: Path) -> LabelledFiles:
    is_parquet, cache = path.suffix == ".parquet", default_cache_folder().absolute()
    rows = _tested(read_parquet(path, cache) if is_parquet else read_csv(path))
    names = tuple(_name(path.absolute().parent, Path(file), cache) for file in rows.paths) if is_parquet else rows.paths
    classes = tuple(sorted(set(rows.labels)))
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers[label] for label in rows.labels], dtype=np.int64)
    slices = tuple(SliceColumn(name, values) for name, values in rows.columns.items())
    return LabelledFiles(path, names, rows.files(), classes, labels, slices)


def _name(folder: Path, file: Path, cache: Path) -> str:
    """The same on every machine: of an image within the table its row, else the path below its folder."""
    if file.is_relative_to(cache):
        return file.name
    return str(file.relative_to(folder) if file.is_relative_to(folder) else file)


def _tested(rows: LabelledRows) -> LabelledRows:
    """The test images, of a table that has those of a training too."""
    splits = rows.columns.get(SPLIT, ())
    names = {SPLITS.get(value.lower()) for value in splits}
    if "test" not in names or len(names) == 1 or None in names:
        return rows
    places = [place for place, value in enumerate(splits) if SPLITS[value.lower()] == "test"]
    _logger.warning("of %s the %d images whose split is test are evaluated", rows.source, len(places))
    return rows.select(places)


def _as_numbers(classes: Sequence[str], outputs: int) -> list[int]:
    """The classes as places of outputs, if each is the number of one."""
    if not all(name.isdecimal() and name.isascii() for name in classes):
        return []
    numbers = [int(name) for name in classes]
    return numbers if max(numbers) < outputs and len(set(numbers)) == len(numbers) else []


def _numbered(files: LabelledFiles, classes: tuple[str, ...], places: Sequence[int]) -> LabelledFiles:
    labels = np.array(places, dtype=np.int64)[files.labels]
    return LabelledFiles(files.source, files.names, files.paths, classes, labels, files.slices)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(map(printable, names[:_NAMED])) + (f" and {more} more" if more > 0 else "")


def _at(values: Sequence[str], places: NDArray[np.int64]) -> tuple[str, ...]:
    return tuple(values[place] for place in places.tolist())
