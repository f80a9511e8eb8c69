"""What a file is made of, read from its bytes without running any of it: tensors, and the rest."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.metadata import METADATA_KEY
from ecd_deploy.exporters.openvino_layout import GRAPH

_FLOAT_BYTES = 4
_STORAGE = re.compile(r"/(?:constants/\d+|data/\d+|data/weights/weight_\d+|data/constants/(?:tensor|const)\w*_\d+)$")
_EMPTY = re.compile(r"/data/sample_inputs/\w+\.pt$")
_PROGRAM = re.compile(
    r"/(?:code/.*\.py|(?:data|constants)\.pkl|models/\w+\.json|data/(?:weights|constants)/\w+_config\.json"
    r"|extra/[\w.]+\.json|version|\.data/version|byteorder|archive_format|archive_version|\.data/serialization_id)$"
)


@dataclass(frozen=True)
class Affine:
    """How integers stand for numbers: (q - zero) * scale, one entry a channel of `axis` or one for all."""

    scale: NDArray[np.float64]
    zero: NDArray[np.float64]
    axis: int


@dataclass(frozen=True, eq=False)
class FileTensor:
    """A tensor of a file.

    Attributes:
        array: its elements; bytes whose type the file does not say beside them are read as float32.
        affine: of integers that stand for numbers.
        role: what the graph uses it for, where that limits what it may be.
        raw: its bytes, where `array` is a guess.
    """

    name: str
    array: NDArray[Any]
    affine: Affine | None = None
    role: str = ""
    raw: bytes | None = None


@dataclass(frozen=True)
class Contents:
    """All of a file: `overhead` is what is no tensor, as it stands in the file, without the metadata's text."""

    tensors: tuple[FileTensor, ...]
    overhead: bytes
    overhead_limit: int
    problems: tuple[str, ...] = field(default=())


def read_contents(data: bytes, metadata: str) -> Contents | None:
    """Read a file by what its first bytes say it is; None if there is no reader.

    Args:
        data: of the file.
        metadata: the JSON text that it carries; its size adds to what is allowed beside the tensors.

    Raises:
        ExportError: the bytes are not what they seem.
    """
    # Imported here: each pulls in a library that the others do not need.
    from ecd_deploy.exporters.audit.onnx_contents import read_onnx
    from ecd_deploy.exporters.audit.ort_contents import read_ort
    from ecd_deploy.exporters.audit.pte_contents import read_pte

    readers: tuple[tuple[bool, Callable[[bytes, str], Contents]], ...] = (
        (data[8:9] == b"{", _read_safetensors),
        (data[:4] == b"PK\x03\x04", _read_zip),
        (data[4:8] == b"ORTM", read_ort),
        (data[4:8] == b"ET12", read_pte),
        (data[:1] == b"\x08", read_onnx),
    )
    for matches, reader in readers:
        if matches:
            return reader(data, metadata)
    return None


def _read_safetensors(data: bytes, metadata: str) -> Contents:
    try:
        entries = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise ExportError(f"not a safetensors artefact: {error}") from error
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    extra = sorted(set(header.get("__metadata__", {})) - {METADATA_KEY})
    # safetensors itself refuses gaps and overlaps: header and tensors are all of the file.
    tensors = tuple(raw_tensor(name, bytes(entry["data"]), entry["dtype"]) for name, entry in entries)
    problems = tuple(f"the file has an entry of metadata '{key}'" for key in extra)
    return Contents(tensors, data[: 8 + length], 256 + 256 * len(tensors) + 2 * len(metadata), problems)


def _read_zip(data: bytes, metadata: str) -> Contents:
    tensors: list[FileTensor] = []
    problems: list[str] = []
    rest: list[bytes] = []
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if any(entry.filename == GRAPH for entry in entries):
                return _read_ir(archive, metadata, len(data))
            for entry in entries:
                content = archive.read(entry)
                if _STORAGE.search(entry.filename):
                    tensors.append(raw_tensor(entry.filename, content, "?"))
                elif _PROGRAM.search(entry.filename) or (_EMPTY.search(entry.filename) and not content):
                    rest.append(entry.filename.encode() + b"\n" + content)
                else:
                    problems.append(f"the archive holds {entry.filename}, {len(content)} bytes of unknown purpose")
                if entry.compress_size != entry.file_size:
                    problems.append(f"the archive compresses {entry.filename}")
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ExportError(f"not an archive of torch: {error}") from error
    problems += _framing_problems(entries, len(data))
    # A node of a .pt2 takes about 1,500 bytes of JSON, and brings a tensor or two.
    limit = 32_768 + 3072 * max(len(tensors), 1) + 2 * len(metadata)
    return Contents(tuple(tensors), b"\n".join(rest), limit, tuple(problems))


def _read_ir(archive: zipfile.ZipFile, metadata: str, size: int) -> Contents:
    from ecd_deploy.exporters.audit.openvino_contents import read_openvino

    contents = read_openvino(archive, metadata)
    return replace(contents, problems=(*contents.problems, *_framing_problems(archive.infolist(), size)))


def _framing_problems(entries: list[zipfile.ZipInfo], size: int) -> Iterator[str]:
    outside = size - sum(entry.compress_size for entry in entries)
    # Names stand twice in a zip, and torch pads each entry to 64 bytes.
    framing = sum(2 * len(entry.filename) + 512 for entry in entries) + 1024
    if outside > framing:
        yield f"the archive has {outside} bytes outside its entries, at most {framing} are expected"


_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1"}


def raw_tensor(name: str, content: bytes, dtype: str) -> FileTensor:
    """A tensor of its bytes; `dtype` is safetensors' name of their type, '?' where the file does not say."""
    if dtype in _TYPES:
        return FileTensor(name, np.frombuffer(content, dtype=_TYPES[dtype]))
    whole = len(content) % _FLOAT_BYTES == 0
    return FileTensor(name, np.frombuffer(content, dtype="<f4" if whole else "u1"), raw=content)
