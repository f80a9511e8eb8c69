"""Parquet files of images, as paths or as bytes; those of the Hugging Face hub are read as they lie there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ecd_deploy.data.imagefolder.listing import printable
from ecd_deploy.data.sources.tables import LABEL, PATH, SPLIT, SPLITS, LabelledRows, class_labels
from ecd_deploy.data.sources.unpacked import unpack
from ecd_deploy.errors import DataError, UsageError, reraise_machine_fault

_IMAGE: Final = "image"
_BYTES: Final = "bytes"
_ROWS_AT_ONCE = 256


def read_parquet(path: Path, cache: Path) -> LabelledRows:
    """Read a Parquet file, or a folder of those whose names begin with their split, such as `train-00000-of-2.parquet`.

    The column label holds names or numbers, which Hugging Face's metadata name; the column image holds encoded images,
    alone or as Hugging Face stores them, and without it the column path names files, from the table's folder.

    Args:
        path: of the file, or of a folder that has them anywhere below.
        cache: folder in which images that are stored as bytes are unpacked, once.

    Raises:
        UsageError: pyarrow is not installed.
        DataError: there is no such file, it is damaged, or a column is missing.
    """
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} holds no Parquet file (*.parquet)")
    parts = [_read(file, cache, _split_of(file) if path.is_dir() else None) for file in files]
    names = parts[0].columns.keys()
    for file, part in zip(files, parts, strict=True):
        if part.columns.keys() != names:
            raise DataError(f"the columns of {file} are not those of {files[0]}")
    return LabelledRows.joined(files[0], parts)


def _read(file: Path, cache: Path, split: str | None) -> LabelledRows:
    try:
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise UsageError(
            f"Parquet files need pyarrow, which is not installed: pip install 'ecd-deploy[parquet]' ({error})"
        ) from error
    try:
        with parquet.ParquetFile(file) as table:
            schema = table.schema_arrow
            _check_columns(file, schema.names)
            others = [name for name in schema.names if name not in (PATH, LABEL, _IMAGE)]
            found = table.read([LABEL, *others]).to_pydict()
            if _IMAGE in schema.names:
                paths = tuple(map(str, unpack([file], _contents(table, file), cache)))
            else:
                paths = tuple(str(file.absolute().parent / name) for name in table.read([PATH]).to_pydict()[PATH])
    except DataError:
        raise
    except Exception as error:
        reraise_machine_fault(error)
        raise DataError(f"{file} cannot be read as a Parquet file: {type(error).__name__}: {error}") from error
    columns = {name: tuple(map(str, found[name])) for name in others}
    if split is not None:
        columns[SPLIT] = (split,) * len(paths)
    return LabelledRows(file, paths, class_labels(str(file), found[LABEL], _class_names(schema.metadata)), columns)


def _check_columns(file: Path, names: Sequence[str]) -> None:
    for wanted in ((LABEL,), (_IMAGE, PATH)):
        if not set(wanted) & set(names):
            missing, found = "' or '".join(wanted), ", ".join(map(printable, names))
            raise DataError(f"{file} has no column '{missing}'; its columns are {found}")


def _class_names(metadata: dict[bytes, bytes] | None) -> Sequence[str] | None:
    """What Hugging Face's metadata call the numbers of the column label."""
    features = json.loads((metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    names: Sequence[str] | None = features.get(LABEL, {}).get("names")
    return names


def _contents(table: Any, file: Path) -> Iterator[bytes]:
    row = 0
    for batch in table.iter_batches(_ROWS_AT_ONCE, columns=[_IMAGE]):
        for value in batch.column(0).to_pylist():
            content = value.get(_BYTES) if isinstance(value, dict) else value
            if not isinstance(content, bytes):
                raise DataError(f"{file}, row {row}: column 'image' holds no bytes of an image")
            yield content
            row += 1


def _split_of(file: Path) -> str:
    for name in sorted(SPLITS, key=len, reverse=True):
        if file.name.lower().startswith(name):
            return name
    raise DataError(f"the name of {file} begins with none of {', '.join(SPLITS)}: which split it has is not known")
