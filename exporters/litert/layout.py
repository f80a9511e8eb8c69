"""What lies where in a LiteRT model: read from its bytes, without LiteRT.

A `.tflite` is one flatbuffer; the fields' numbers are those of LiteRT's `schema.fbs`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from flatbuffers import number_types

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.files.contents import Span
from ecd_deploy.exporters.files.flatbuffer import Node

_IDENTIFIER = b"TFL3"
# Fields of Model, SubGraph, Tensor, QuantizationParameters, Buffer and Metadata, by their number.
_SUBGRAPHS, _BUFFERS, _METADATA = 2, 4, 6
_TENSORS, _OPERATORS = 0, 3
_TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_BUFFER, _TENSOR_NAME, _TENSOR_STEPS = 0, 1, 2, 3, 4
_STEPS_SCALE, _STEPS_ZERO, _STEPS_AXIS = 2, 3, 6
_BUFFER_DATA, _BUFFER_OFFSET = 0, 1
_METADATA_NAME, _METADATA_BUFFER = 0, 1

# LiteRT's types of tensors, as safetensors calls them.
_TYPES = {0: "F32", 1: "F16", 2: "I32", 3: "U8", 4: "I64", 6: "U8", 7: "I16", 9: "I8", 10: "F64"}


@dataclass(frozen=True)
class Steps:
    """How a tensor's integers stand for numbers: float32 scales and int64 zero points, one entry a channel or one."""

    scale: Span
    zero: Span
    axis: int


@dataclass(frozen=True)
class Tensor(Span):
    """A tensor that has bytes in the file."""

    shape: tuple[int, ...]
    steps: Steps | None


@dataclass(frozen=True)
class Text:
    """An entry of the model's metadata."""

    name: str
    content: bytes


@dataclass(frozen=True)
class TfliteLayout:
    """The tensors that have bytes in the file, its metadata, and what should not be in it."""

    tensors: tuple[Tensor, ...]
    texts: tuple[Text, ...]
    operators: int
    problems: tuple[str, ...]


def read_layout(data: bytes) -> TfliteLayout:
    """Find the tensors and texts of a model.

    Raises:
        ExportError: the bytes are none.
    """
    if data[4:8] != _IDENTIFIER:
        raise ExportError("not a litert artefact: it does not begin as one does")
    try:
        return _layout(data)
    except (struct.error, IndexError, KeyError, TypeError, ValueError, UnicodeDecodeError) as error:
        raise ExportError(f"not a litert artefact: {error}") from error


def _layout(data: bytes) -> TfliteLayout:
    root = Node(data, int.from_bytes(data[:4], "little"))
    places = [buffer.raw(_BUFFER_DATA) for buffer in root.nodes(_BUFFERS)]
    if any(start + size > len(data) for start, size in places):
        raise ValueError("a buffer lies outside it")
    graphs = root.nodes(_SUBGRAPHS)
    problems = [f"it has {len(graphs)} graphs"] if len(graphs) != 1 else []
    if any(buffer.number(_BUFFER_OFFSET, number_types.Uint64Flags) > 1 for buffer in root.nodes(_BUFFERS)):
        problems.append("a tensor lies behind the model")
    spans: dict[int, Tensor] = {}
    for tensor in (tensor for graph in graphs for tensor in graph.nodes(_TENSORS)):
        index = tensor.number(_TENSOR_BUFFER, number_types.Uint32Flags)
        start, size = places[index]
        if size and index not in spans:
            spans[index] = _tensor(data, tensor, f"{index}/{tensor.text(_TENSOR_NAME)[:80]}", start, start + size)
    texts = []
    for entry in root.nodes(_METADATA):
        start, size = places[entry.number(_METADATA_BUFFER, number_types.Uint32Flags)]
        texts.append(Text(entry.text(_METADATA_NAME), data[start : start + size]))
    operators = sum(len(graph.nodes(_OPERATORS)) for graph in graphs)
    return TfliteLayout(tuple(spans.values()), tuple(texts), operators, tuple(problems))


def _tensor(data: bytes, tensor: Node, name: str, start: int, stop: int) -> Tensor:
    kind = _TYPES.get(tensor.number(_TENSOR_TYPE, number_types.Int8Flags), "?")
    shape = tuple(tensor.integers(_TENSOR_SHAPE, number_types.Int32Flags))
    given = tensor.optional_node(_TENSOR_STEPS)
    steps = None
    if given is not None and given.raw(_STEPS_SCALE)[1]:
        (scale, scales), (zero, zeros) = given.raw(_STEPS_SCALE), given.raw(_STEPS_ZERO)
        if scale + 4 * scales > len(data) or zero + 8 * zeros > len(data) or not zeros:
            raise ValueError(f"the scales of {name} lie outside it")
        steps = Steps(
            Span(f"{name}/scale", scale, scale + 4 * scales, "F32"),
            Span(f"{name}/zero", zero, zero + 8 * zeros, "I64"),
            given.number(_STEPS_AXIS, number_types.Int32Flags),
        )
    return Tensor(name, start, stop, kind, shape, steps)
