"""Data sets of the library `datasets`: a folder that `save_to_disk` wrote, or one of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ecd_deploy.data.imagefolder.listing import printable
from ecd_deploy.data.sources.tables import LABEL, SPLIT, LabelledRows, class_labels
from ecd_deploy.data.sources.unpacked import unpack
from ecd_deploy.errors import DataError, UsageError, first_line, reraise_machine_fault

_IMAGE = "image"


def read_folder(path: Path, cache: Path) -> LabelledRows:
    """Read what `save_to_disk` wrote: a `DatasetDict` of splits, or a `Dataset` with a column split.

    Images are in the column image, or in the only one of that type; labels in the column label, or in the only one of
    classes. Columns of single values are kept.

    Args:
        path: of the folder.
        cache: folder in which the images are unpacked, once.

    Raises:
        UsageError: the library is not installed.
        DataError: there is no such data set, or a column is missing or holds something else.
    """
    return _rows(path, lambda library: library.load_from_disk(str(path), keep_in_memory=False), cache)


def read_hub(name: str, downloads: str | None, cache: Path) -> LabelledRows:
    """Read a data set of the hub by `OWNER/NAME`, through the library's client and its cache; see `read_folder`.

    Args:
        name: as on the hub.
        downloads: folder for what is downloaded; None for the library's own.
        cache: folder in which the images are unpacked, once.
    """
    return _rows(Path(name), lambda library: library.load_dataset(name, cache_dir=downloads), cache)


def _rows(source: Path, load: Callable[[Any], Any], cache: Path) -> LabelledRows:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{source} is read by the library datasets, which is not installed: pip install 'ecd-deploy[datasets]' "
            f"({error})"
        ) from error
    try:
        found = load(datasets)
        parts = found if isinstance(found, datasets.DatasetDict) else {None: found}
        rows = [_split(datasets, source, split, part, cache) for split, part in parts.items()]
    except DataError:
        raise
    except Exception as error:
        reraise_machine_fault(error)
        raise DataError(f"{source} cannot be read as a data set: {first_line(error)}") from error
    names = rows[0].columns.keys()
    if any(part.columns.keys() != names for part in rows):
        raise DataError(f"the splits of {source} differ in their columns")
    return LabelledRows.joined(source, rows)


def _split(library: Any, source: Path, split: str | None, part: Any, cache: Path) -> LabelledRows:
    image = _column(source, part, _IMAGE, library.Image)
    label = _column(source, part, LABEL, library.ClassLabel)
    names = getattr(part.features[label], "names", None)
    where = str(source) if split is None else f"{source}, {split}"
    labels = class_labels(where, part[label], names)
    single = [name for name, kind in part.features.items() if isinstance(kind, library.Value | library.ClassLabel)]
    columns = {name: tuple(map(str, part[name])) for name in single if name not in (image, label)}
    if split is not None:
        columns[SPLIT] = (split,) * len(labels)
    encoded = part.select_columns([image]).cast_column(image, library.Image(decode=False))
    files = [Path(entry["filename"]) for entry in part.cache_files]
    paths = tuple(map(str, unpack(files, _contents(where, encoded, image), cache)))
    return LabelledRows(source, paths, labels, columns)


def _column(source: Path, part: Any, name: str, kind: Any) -> str:
    """The column of this name, or else the only one of this type."""
    if name in part.features:
        return name
    typed: list[str] = [other for other, feature in part.features.items() if isinstance(feature, kind)]
    if len(typed) != 1:
        columns = ", ".join(map(printable, part.features))
        raise DataError(
            f"{source} has no column '{name}', and {len(typed)} of the type {kind.__name__}; its columns are {columns}"
        )
    return typed[0]


def _contents(where: str, encoded: Any, image: str) -> Iterator[bytes]:
    for row, values in enumerate(encoded):
        content = values[image] or {}
        if content.get("bytes") is None and content.get("path") is None:
            raise DataError(f"{where}, row {row}: there is no image")
        yield Path(content["path"]).read_bytes() if content["bytes"] is None else content["bytes"]
