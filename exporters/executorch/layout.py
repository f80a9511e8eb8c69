"""What lies where in an ExecuTorch program: read from its bytes, without ExecuTorch, which takes seconds to import.

A `.pte` is a flatbuffer with a header after its root, followed by segments; the fields' numbers are those of
ExecuTorch's `program.fbs`, which may be added to, but not renumbered.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from flatbuffers import number_types

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.files.contents import Span
from ecd_deploy.exporters.files.flatbuffer import Node

_IDENTIFIER, _HEADER = b"ET12", b"eh00"
_PROGRAM_HEADER = struct.Struct("<4sIQQQ")
_HEADER_START = 8

# Fields of Program, ExecutionPlan, Tensor and the rest, by their number.
_PLANS, _BUFFERS, _DELEGATES, _SEGMENTS, _CONSTANTS, _MUTABLE, _NAMED = range(1, 8)
_PLAN_NAME, _PLAN_VALUES, _PLAN_OUTPUTS = 0, 2, 4
_TENSOR_TYPE, _TENSOR_SIZES, _TENSOR_BUFFER, _TENSOR_MEMORY, _TENSOR_EXTRA = 0, 2, 5, 6, 9
_VALUE_KIND, _VALUE = 0, 1
_IS_TENSOR, _IS_STRING = 5, 6
_EXTRA_LOCATION = 2

# ExecuTorch's scalar types, as safetensors calls them.
SCALAR_TYPES = {0: "U8", 1: "I8", 2: "I16", 3: "I32", 4: "I64", 5: "F16", 6: "F32", 7: "F64", 11: "U8"}
_ITEM_BYTES = {0: 1, 1: 1, 2: 2, 3: 4, 4: 8, 5: 2, 6: 4, 7: 8, 11: 1}


@dataclass(frozen=True)
class PteLayout:
    """A program: the tensors it holds, the texts it returns, and what it should not have."""

    tensors: tuple[Span, ...]
    texts: dict[str, str]
    values: int
    problems: tuple[str, ...]


def read_layout(data: bytes) -> PteLayout:
    """Find the tensors and texts of an ExecuTorch program.

    Raises:
        ExportError: the bytes are none.
    """
    if data[4:8] != _IDENTIFIER or data[_HEADER_START : _HEADER_START + 4] != _HEADER:
        raise ExportError("not an executorch artefact: its identifier is missing")
    try:
        return _layout(data)
    except (struct.error, IndexError, TypeError, ValueError, OverflowError) as error:
        raise ExportError(f"not an executorch artefact: {error}") from error


def _layout(data: bytes) -> PteLayout:
    _, _, program_bytes, base, segment_bytes = _PROGRAM_HEADER.unpack_from(data, _HEADER_START)
    root = Node(data, int.from_bytes(data[:4], "little"))
    segments = [
        (base + segment.number(0, number_types.Uint64Flags), segment.number(1, number_types.Uint64Flags))
        for segment in root.nodes(_SEGMENTS)
    ]
    if program_bytes > base or any(start + size > len(data) for start, size in segments):
        raise ExportError("not an executorch artefact: it is shorter than its header says")
    named = [(node.text(0), segments[node.number(1, number_types.Uint32Flags)]) for node in root.nodes(_NAMED)]
    tensors = [Span(name, start, start + size, "?") for name, (start, size) in named]
    plans = [(plan.text(_PLAN_NAME), plan) for plan in root.nodes(_PLANS)]
    values = [value for _, plan in plans for value in plan.nodes(_PLAN_VALUES)]
    tensors += _constants(data, root, segments, values)
    problems = []
    if len(data) != base + segment_bytes:
        problems.append(f"{len(data) - base - segment_bytes} bytes follow the last segment")
    if len(root.nodes(_MUTABLE)):
        problems.append("the program has state that it changes")
    extras = (value.node(_VALUE).optional_node(_TENSOR_EXTRA) for value in values if _kind(value) == _IS_TENSOR)
    if any(extra is not None and extra.number(_EXTRA_LOCATION, number_types.Int8Flags) for extra in extras):
        problems.append("a tensor is kept in another file")
    return PteLayout(
        tuple(tensors), {name: text for name, plan in plans for text in _texts(plan)}, len(values), tuple(problems)
    )


def _texts(plan: Node) -> Iterator[str]:
    """What a method returns, if that is one text."""
    outputs = plan.integers(_PLAN_OUTPUTS, number_types.Int32Flags)
    values = plan.nodes(_PLAN_VALUES)
    if len(outputs) == 1 and _kind(values[outputs[0]]) == _IS_STRING:
        yield values[outputs[0]].node(_VALUE).text(0)


def _constants(data: bytes, root: Node, segments: list[tuple[int, int]], values: list[Node]) -> Iterator[Span]:
    """Constants of operators that no delegate took: in the flatbuffer, or in a segment of their own."""
    constants = root.optional_node(_CONSTANTS)
    offsets = [] if constants is None else constants.integers(1, number_types.Uint64Flags)
    inline = root.nodes(_BUFFERS)
    seen: set[int] = set()
    for value in values:
        if _kind(value) != _IS_TENSOR:
            continue
        tensor = value.node(_VALUE)
        index = tensor.number(_TENSOR_BUFFER, number_types.Uint32Flags)
        if index == 0 or index in seen or tensor.optional_node(_TENSOR_MEMORY) is not None:
            continue
        seen.add(index)
        kind = tensor.number(_TENSOR_TYPE, number_types.Int8Flags)
        if offsets and constants is not None:
            size = prod(tensor.integers(_TENSOR_SIZES, number_types.Int32Flags)) * _ITEM_BYTES[kind]
            start = segments[constants.number(0, number_types.Uint32Flags)][0] + offsets[index]
        else:
            start, size = inline[index].raw(0)
        if start + size > len(data):
            raise ExportError("not an executorch artefact: a constant lies outside it")
        yield Span(f"constant/{index}", start, start + size, SCALAR_TYPES[kind])


def _kind(value: Node) -> int:
    return value.number(_VALUE_KIND, number_types.Uint8Flags)
