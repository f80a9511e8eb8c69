"""Reads zip archives as artefacts are: entries not compressed and without time, and nothing outside of them."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from ecd_deploy.errors import ExportError

METADATA: Final = "metadata.json"
"""Of a format whose files have no place for the metadata."""

# Of the zip format, in bytes: an entry's header, where the lengths stand in it, that and its line in the directory,
# what may follow its content, and what ends an archive.
_LOCAL_HEADER, _LENGTHS, _HEADERS, _DESCRIPTOR, _END = 30, 26, 30 + 46, 24, 22 + 56 + 20
_HAS_DESCRIPTOR = 8  # a flag


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

    def parts(self, names: Collection[str], format_name: str) -> dict[str, bytes]:
        """The content of each entry, by name, as `stored_zip` took them.

        Raises:
            ExportError: the archive holds other entries than these, or one twice.
        """
        found = [entry.name for entry in self.entries]
        if sorted(found) != sorted(names):
            raise ExportError(f"not an {format_name} artefact: the archive holds {', '.join(found)}")
        return {entry.name: entry.content for entry in self.entries}


@dataclass(frozen=True)
class ModelParts:
    """A model of two files and its metadata, and what is wrong with the archive that holds them."""

    graph: bytes
    weights: bytes
    metadata: str
    problems: tuple[str, ...]


def read_parts(data: bytes, graph: str, weights: str, format_name: str) -> ModelParts:
    """Take a model apart that is kept as an archive of its graph, its weights and its metadata.

    Raises:
        ExportError: it is no archive, or one that holds something else.
    """
    archive = read_archive(data, format_name)
    parts = archive.parts((graph, weights, METADATA), format_name)
    text = parts[METADATA].decode(errors="replace")
    return ModelParts(parts[graph], parts[weights], text, archive.problems)


def read_archive(data: bytes, format_name: str) -> Archive:
    """Read every entry of an archive.

    Raises:
        ExportError: the bytes are none.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            listed = archive.infolist()
            entries = tuple(Entry(entry.filename, archive.read(entry)) for entry in listed)
            problems = tuple(_problems(archive, data))
    except (struct.error, zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise ExportError(f"not an artefact of the format {format_name}: {error}") from error
    return Archive(entries, problems)


def _problems(archive: zipfile.ZipFile, data: bytes) -> Iterator[str]:
    entries = archive.infolist()
    yield from (f"the archive compresses {e.filename}" for e in entries if e.compress_size != e.file_size)
    if archive.comment or any(entry.comment or entry.extra for entry in entries):
        yield "the archive has comments"
    framing = _END
    for entry in entries:
        padding = _padding(entry, data)
        if padding.removeprefix(b"FB" + struct.pack("<H", max(len(padding) - 4, 0))).strip(b"Z"):
            yield f"{entry.filename} is padded with data"
        framing += _HEADERS + 2 * len(entry.orig_filename.encode()) + len(padding)
        framing += _DESCRIPTOR if entry.flag_bits & _HAS_DESCRIPTOR else 0
    outside = len(data) - sum(entry.compress_size for entry in entries)
    if outside > framing:
        yield f"the archive has {outside} bytes outside its entries, at most {framing} are expected"


def _padding(entry: zipfile.ZipInfo, data: bytes) -> bytes:
    """What stands between an entry's name and its content: torch aligns each with a field 'FB' of 'Z's."""
    name, extra = struct.unpack_from("<HH", data, entry.header_offset + _LENGTHS)
    start = entry.header_offset + _LOCAL_HEADER + name
    return data[start : start + extra]
