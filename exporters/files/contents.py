"""What a file is made of, read from its bytes without running any of it: tensors, and the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FLOAT_BYTES = 4
_LARGE, _END = 2**16, 2**63 - 1
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1"}


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
        name: unique in the file.
        array: its elements; bytes whose type the file does not say beside them are read as float32.
        affine: of integers that stand for numbers.
        role: what the graph uses it for, where that limits what it may be: "scale of NAME", of the integers NAME;
            "blocked", which a runtime may have laid out in blocks.
        raw: its bytes, where `array` is a guess.
    """

    name: str
    array: NDArray[Any]
    affine: Affine | None = None
    role: str = ""
    raw: bytes | None = None


@dataclass(frozen=True)
class Contents:
    """All of a file.

    Attributes:
        tensors: every one, whatever it is for.
        overhead: what is no tensor, as it stands in the file.
        overhead_limit: how many bytes of overhead are expected at most, besides the text of the metadata.
        problems: what should not be in such a file, each as a sentence; any of them fails the audit.
        numbers: that its operators are given beside tensors: every float, and integers too large for a size or a place.
    """

    tensors: tuple[FileTensor, ...]
    overhead: bytes
    overhead_limit: int
    problems: tuple[str, ...] = ()
    numbers: tuple[float, ...] = ()


@dataclass(frozen=True)
class Span:
    """Where a tensor's bytes lie, data[start:stop].

    Attributes:
        name: unique in the file.
        dtype: as safetensors calls it; '?' where the file does not say.
    """

    name: str
    start: int
    stop: int
    dtype: str

    def read(self, data: bytes) -> FileTensor:
        """The tensor, flat."""
        return raw_tensor(self.name, data[self.start : self.stop], self.dtype)


def outside(data: bytes, spans: Iterable[Span]) -> bytes:
    """What lies in none of the spans."""
    rest: list[bytes] = []
    end = 0
    for start, stop in sorted((span.start, span.stop) for span in spans):
        rest.append(data[end:start])
        end = max(end, stop)
    return b"".join((*rest, data[end:]))


def telling(values: Iterable[float]) -> Iterator[float]:
    """Those of an operator's numbers that may say more than a size, a place or an open end does."""
    return (float(value) for value in values if type(value) is not int or _LARGE <= abs(value) < _END)


def raw_tensor(name: str, content: bytes, dtype: str) -> FileTensor:
    """A tensor of its bytes; `dtype` is safetensors' name of their type, '?' where the file does not say."""
    if dtype in _TYPES:
        return FileTensor(name, np.frombuffer(content, dtype=_TYPES[dtype]))
    whole = len(content) % _FLOAT_BYTES == 0
    return FileTensor(name, np.frombuffer(content, dtype="<f4" if whole else "u1"), raw=content)
