"""Zip archives as artefacts are: entries that are not compressed and have no time, and nothing outside of them."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ecd_deploy.errors import ExportError

_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Entry:
    """A file of an archive; nothing keeps two from having one name."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Archive:
    """The entries of an archive in their order, and what of its framing is not as it should be."""

    entries: tuple[Entry, ...]
    problems: tuple[str, ...]


def write_archive(parts: Mapping[str, bytes]) -> bytes:
    """Write an archive: the same parts in the same order give the same bytes."""
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return result.getvalue()


def read_archive(data: bytes, format_name: str) -> Archive:
    """Read every entry of an archive.

    Raises:
        ExportError: the bytes are none.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            listed = archive.infolist()
            entries = tuple(Entry(entry.filename, archive.read(entry)) for entry in listed)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise ExportError(f"not an artefact of the format {format_name}: {error}") from error
    return Archive(entries, tuple(_problems(listed, len(data))))


def _problems(entries: list[zipfile.ZipInfo], size: int) -> Iterator[str]:
    yield from (f"the archive compresses {e.filename}" for e in entries if e.compress_size != e.file_size)
    outside = size - sum(entry.compress_size for entry in entries)
    # Names stand twice in a zip, and torch pads each entry to 64 bytes.
    framing = sum(2 * len(entry.filename) + 512 for entry in entries) + 1024
    if outside > framing:
        yield f"the archive has {outside} bytes outside its entries, at most {framing} are expected"
