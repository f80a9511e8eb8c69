"""A protocol buffer's messages, read by the numbers of their fields: a schema may be added to, but not renumbered."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


class Message:
    """A message, its fields by number; what is damaged raises `ValueError` or `IndexError`."""

    def __init__(self, data: bytes) -> None:
        self._numbers: dict[int, int] = {}
        self._blobs: dict[int, list[bytes]] = {}
        for field, value in _fields(data):
            if isinstance(value, int):
                self._numbers[field] = value
            else:
                self._blobs.setdefault(field, []).append(value)

    @property
    def fields(self) -> frozenset[int]:
        """The numbers of the fields that it has."""
        return frozenset((*self._numbers, *self._blobs))

    def number(self, field: int) -> int:
        """A number; 0 where the field is absent."""
        return self._numbers.get(field, 0)

    def blobs(self, field: int) -> list[bytes]:
        """Each of a repeated field's bytes."""
        return self._blobs.get(field, [])

    def blob(self, field: int) -> bytes:
        """Bytes; none where the field is absent."""
        return self.blobs(field)[-1] if field in self._blobs else b""

    def text(self, field: int) -> str:
        """A text; empty where the field is absent."""
        return self.blob(field).decode()

    def messages(self, field: int) -> list[Message]:
        """Each of a repeated field's messages."""
        return [Message(content) for content in self.blobs(field)]

    def message(self, field: int) -> Message:
        """A message; an empty one where the field is absent."""
        return Message(self.blob(field))

    def entries(self, field: int) -> dict[str, Message]:
        """A map from texts to messages."""
        return {entry.text(1): entry.message(2) for entry in self.messages(field)}

    def integers(self, field: int) -> NDArray[np.int64]:
        """A packed list of signed numbers."""
        content, place, found = self.blob(field), 0, []
        while place < len(content):
            value, place = _varint(content, place)
            found.append(value)
        return np.array(found, dtype=np.uint64).astype(np.int64)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind = tag & 7
        if kind == _VARINT:
            value, place = _varint(data, place)
            yield tag >> 3, value
            continue
        if kind == _LENGTH:
            size, place = _varint(data, place)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            size = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        if place + size > len(data):
            raise ValueError("a field is longer than its message")
        yield tag >> 3, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where the next one begins."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), place
        shift += 7
        if shift > 63:
            raise ValueError("a number has more than 64 bits")
