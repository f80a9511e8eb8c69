"""A flatbuffer's tables, read by the numbers of their fields: a schema may be added to, but not renumbered."""

from __future__ import annotations

from flatbuffers.table import Table


class Node:
    """A table, its fields by number; what is damaged raises `ValueError`, or an error of `struct`."""

    def __init__(self, data: bytes, position: int) -> None:
        self._table = Table(data, position)

    def _offset(self, field: int) -> int:
        return int(self._table.Offset(4 + 2 * field))

    def number(self, field: int, kind: type) -> int:
        """A number of one of flatbuffers' types; 0 where the field is absent."""
        offset = self._offset(field)
        return int(self._table.Get(kind, offset + self._table.Pos)) if offset else 0

    def text(self, field: int) -> str:
        """A text; empty where the field is absent."""
        offset = self._offset(field)
        return self._table.String(offset + self._table.Pos).decode() if offset else ""

    def node(self, field: int) -> Node:
        """A table that must be there."""
        found = self.optional_node(field)
        if found is None:
            raise ValueError(f"field {field} of a table is missing")
        return found

    def optional_node(self, field: int) -> Node | None:
        """A table that may be absent."""
        offset = self._offset(field)
        return Node(self._table.Bytes, self._table.Indirect(offset + self._table.Pos)) if offset else None

    def nodes(self, field: int) -> list[Node]:
        """A list of tables."""
        offset = self._offset(field)
        if not offset:
            return []
        start, count = self._table.Vector(offset), self._table.VectorLen(offset)
        if start + 4 * count > len(self._table.Bytes):
            raise ValueError("a list is longer than the file")
        return [Node(self._table.Bytes, self._table.Indirect(start + 4 * index)) for index in range(count)]

    def integers(self, field: int, kind: type) -> list[int]:
        """A list of numbers of one of flatbuffers' types."""
        offset = self._offset(field)
        if not offset:
            return []
        start, count = self._table.Vector(offset), self._table.VectorLen(offset)
        if start + count > len(self._table.Bytes):
            raise ValueError("a list is longer than the file")
        width = kind.bytewidth  # type: ignore[attr-defined]
        return [int(self._table.Get(kind, start + width * index)) for index in range(count)]

    def raw(self, field: int) -> tuple[int, int]:
        """Where bytes begin, and how many they are."""
        offset = self._offset(field)
        return (int(self._table.Vector(offset)), int(self._table.VectorLen(offset))) if offset else (0, 0)
