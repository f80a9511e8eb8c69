"""What is demanded of a written ONNX model, and what is taken out of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import onnx

from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.budget import FLOAT16_BUDGET, FLOAT32_BUDGET, INT8_BUDGET, ParityBudget
from ecd_deploy.exporters.files.metadata import (
    INPUT_NAME,
    METADATA_KEY,
    OUTPUT_NAME,
    PROBABILITIES_NAME,
    ArtefactMetadata,
)

_HALF: Final = frozenset({onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16})
_QUANTISED: Final = re.compile("Quantize|QLinear|Integer|^QAttention$|^QGemm$")


def budget_of(operators: Iterable[str], tensors: Iterable[int]) -> ParityBudget:
    """How far a model's scores may be off on another processor or provider, by the coarsest numbers in it.

    Args:
        operators: the kinds of its nodes.
        tensors: the types of what it keeps, by their numbers in ONNX.
    """
    if any(map(_QUANTISED.search, operators)):
        return INT8_BUDGET
    return FLOAT32_BUDGET if _HALF.isdisjoint(tensors) else FLOAT16_BUDGET


def strip_provenance(model: onnx.ModelProto) -> None:
    """Remove metadata and doc strings of nodes, values and graphs: stack traces and paths of this machine."""
    _clear(model)
    for function in model.functions:
        _clear(function)
        _clear_all(function.node)
        _clear_all(function.value_info)
        for node in function.node:
            for graph in _subgraphs(node):
                _strip_graph(graph)
    _strip_graph(model.graph)


def set_metadata(model: onnx.ModelProto, text: str) -> None:
    """Write the artefact's metadata as the model's only property."""
    del model.metadata_props[:]
    model.metadata_props.add(key=METADATA_KEY, value=text)


def get_metadata(model: onnx.ModelProto) -> str | None:
    """The artefact's metadata, if the model has any."""
    return next((entry.value for entry in model.metadata_props if entry.key == METADATA_KEY), None)


def check_opset(model: onnx.ModelProto, opset: int) -> None:
    """Compare the opset that was written with the one asked for; the exporter silently takes another.

    Raises:
        ExportError: it is another one, or a further operator set is needed to run the model.
    """
    found = {entry.domain: entry.version for entry in model.opset_import}
    if found != {"": opset}:
        written = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in sorted(found.items()))
        raise ExportError(f"ONNX opset {opset} was asked for, written was {written}")


def check_interface(model: onnx.ModelProto, metadata: ArtefactMetadata) -> None:
    """Compare names, types and sizes of inputs and outputs; the first dimension is free, or the batch of the metadata.

    Raises:
        ExportError: something differs.
    """
    channels, height, width = metadata.input_shape
    element: int = onnx.TensorProto.UINT8
    sizes: tuple[int | str, ...] = ("height", "width", channels)
    if metadata.preprocessing == "inside":
        sizes = (height, width, channels)
    elif metadata.preprocessing == "outside":
        element, sizes = onnx.TensorProto.FLOAT, (channels, height, width)
    _check_values("input", model.graph.input, [_Value(INPUT_NAME, element, metadata.batch, sizes)])
    names = (OUTPUT_NAME, PROBABILITIES_NAME)[: 2 if metadata.preprocessing == "full" else 1]
    outputs = [_Value(name, onnx.TensorProto.FLOAT, metadata.batch, (len(metadata.classes),)) for name in names]
    _check_values("output", model.graph.output, outputs)
    if _sizes(model.graph.input[0])[0] != _sizes(model.graph.output[0])[0]:
        raise ExportError("the ONNX model's output has another batch size than its input")


def check_embedded(model: onnx.ModelProto) -> None:
    """Refuse tensors that are kept in another file.

    Raises:
        ExportError: naming the first such tensor.
    """
    for tensor in outside_tensors(model):
        raise ExportError(f"the ONNX model keeps {tensor.name or 'a constant'} in another file")


def outside_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """The tensors that are kept in another file."""
    for graph in _graphs(model.graph):
        attributes = (attribute for node in graph.node for attribute in node.attribute)
        constants = (tensor for attribute in attributes for tensor in (attribute.t, *attribute.tensors))
        sparse = (part for tensor in graph.sparse_initializer for part in (tensor.values, tensor.indices))
        for tensor in (*graph.initializer, *constants, *sparse):
            if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
                yield tensor


def sort_nodes(model: onnx.ModelProto) -> None:
    """Put every node after those that it takes values from, as ONNX demands; otherwise the order is kept.

    Raises:
        ExportError: the nodes form a circle.
    """
    graph = model.graph
    known = {"", *(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)}
    waiting, ordered = list(graph.node), []
    while waiting:
        ready = next((node for node in waiting if known.issuperset(node.input)), None)
        if ready is None:
            raise ExportError(f"the ONNX model's node {waiting[0].name} takes values that nothing gives")
        waiting.remove(ready)
        ordered.append(ready)
        known.update(ready.output)
    del graph.node[:]
    graph.node.extend(ordered)


@dataclass(frozen=True)
class _Value:
    name: str
    element: int
    batch: int | None
    sizes: tuple[int | str, ...]


def _check_values(side: str, values: Iterable[onnx.ValueInfoProto], expected: Sequence[_Value]) -> None:
    found = list(values)
    names, wanted = [value.name for value in found], [value.name for value in expected]
    if names != wanted:
        raise ExportError(f"the ONNX model's {side}s are {names}, expected {wanted}")
    for value, one in zip(found, expected, strict=True):
        _check_value(side, value, one)


def _check_value(side: str, found: onnx.ValueInfoProto, expected: _Value) -> None:
    name = expected.name
    if found.type.tensor_type.elem_type != expected.element:
        type_name = "uint8" if expected.element == onnx.TensorProto.UINT8 else "float32"
        raise ExportError(f"the ONNX model's {side} '{name}' is not {type_name}")
    batch, *others = _sizes(found)
    if expected.batch is None and (not isinstance(batch, str) or not batch):
        raise ExportError(f"the ONNX model's {side} '{name}' has a fixed batch size, {batch}")
    if expected.batch is not None and batch != expected.batch:
        raise ExportError(f"the ONNX model's {side} '{name}' has batch size {batch}, expected {expected.batch}")
    if tuple(others) != expected.sizes:
        raise ExportError(f"the ONNX model's {side} '{name}' has sizes {tuple(others)}, expected {expected.sizes}")


def _sizes(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    sizes = value.type.tensor_type.shape.dim
    return tuple(size.dim_value if size.HasField("dim_value") else size.dim_param for size in sizes)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for subgraph in _subgraphs(node):
            yield from _graphs(subgraph)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _strip_graph(graph: onnx.GraphProto) -> None:
    for part in _graphs(graph):
        _clear(part)
        for entries in (part.node, part.input, part.output, part.value_info, part.initializer):
            _clear_all(entries)


_Documented = (
    onnx.ModelProto | onnx.FunctionProto | onnx.GraphProto | onnx.NodeProto | onnx.ValueInfoProto | onnx.TensorProto
)


def _clear(entry: _Documented) -> None:
    entry.ClearField("doc_string")
    entry.ClearField("metadata_props")


def _clear_all(entries: Iterable[_Documented]) -> None:
    for entry in entries:
        _clear(entry)
