"""The tensors of an archive that torch writes, a `.pt2` or a TorchScript program."""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterator

from ecd_deploy.exporters.files.contents import Contents, FileTensor, raw_tensor, telling
from ecd_deploy.exporters.files.zip_archive import Entry, read_archive

_GRAPH = re.compile(r"/models/\w+\.json$")
_LITERAL = re.compile(r"(?<![\w.])\d+(?:\.\d*)?(?:e[+-]?\d+)?")
_FLOAT_OF_JSON = re.compile(r'"as_float": *(-?\d[\d.]*(?:[eE][+-]?\d+)?)')
_STORAGE = re.compile(r"/(?:constants/\d+|data/\d+|data/weights/weight_\d+|data/constants/(?:tensor|const)\w*_\d+)$")
_EMPTY = re.compile(r"/data/sample_inputs/\w+\.pt$")
_PROGRAM = re.compile(
    r"/(?:code/.*\.py|(?:data|constants)\.pkl|models/\w+\.json|data/(?:weights|constants)/\w+_config\.json"
    r"|extra/[\w.]+\.json|version|\.data/version|byteorder|archive_format|archive_version|\.data/serialization_id)$"
)


def read_text(data: bytes, name: str, format_name: str) -> str | None:
    """Read an extra file of an archive of torch; None where there is none of that name.

    Raises:
        ExportError: the bytes are no archive.
    """
    for entry in read_archive(data, format_name).entries:
        if entry.name.endswith(f"/extra/{name}"):
            return entry.content.decode(errors="replace")
    return None


def read_torch_archive(data: bytes, format_name: str) -> Contents:
    """Read an archive of torch; what is neither a tensor's storage nor the program is a problem.

    Raises:
        ExportError: it is none.
    """
    archive = read_archive(data, format_name)
    tensors: list[FileTensor] = []
    problems: list[str] = []
    rest: list[bytes] = []
    numbers: list[float] = []
    for entry in archive.entries:
        if _STORAGE.search(entry.name):
            tensors.append(raw_tensor(entry.name, entry.content, "?"))
        elif _PROGRAM.search(entry.name) or (_EMPTY.search(entry.name) and not entry.content):
            rest.append(entry.name.encode() + b"\n" + entry.content)
            numbers += _numbers(entry)
        else:
            problems.append(f"the archive holds {entry.name}, {len(entry.content)} bytes of unknown purpose")
    # A node of a .pt2 takes about 1,500 bytes of JSON, and brings a tensor or two.
    limit = 32_768 + 3072 * max(len(tensors), 1)
    return Contents(tuple(tensors), b"\n".join(rest), limit, (*problems, *archive.problems), tuple(telling(numbers)))


def _numbers(entry: Entry) -> Iterator[float]:
    if entry.name.endswith(".py"):
        yield from map(_number, _LITERAL.findall(entry.content.decode(errors="replace")))
    elif entry.name.endswith(".pkl"):
        # its integers are sizes and strides of tensors
        yield from (value for _, value, _ in pickletools.genops(entry.content) if isinstance(value, float))
    elif _GRAPH.search(entry.name):
        yield from map(float, _FLOAT_OF_JSON.findall(entry.content.decode(errors="replace")))


def _number(text: str) -> float:
    return int(text) if text.isdecimal() else float(text)
