"""The tensors of an ONNX file, with what its operators say of those that are quantised."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ecd_deploy.exporters.files.contents import Affine, Contents, FileTensor, telling
from ecd_deploy.exporters.files.metadata import METADATA_KEY

_MOST_NUMBERS = 16
_MOST_TEXT = 128

# Operator: positions of the inputs (integers, scale, zero point) that are weights, and of an int32 bias.
_QUANTISED = {
    "QLinearConv": ((3, 4, 5), 8, 1),
    "QGemm": ((3, 4, 5), 6, 1),
    "QLinearMatMul": ((3, 4, 5), None, 1),
    "DequantizeLinear": ((0, 1, 2), None, None),
}


def read_onnx(model: onnx.ModelProto, data: bytes) -> Contents:
    """Read a model, which loses its tensors to the result.

    Args:
        model: as parsed.
        data: the bytes that it was parsed from.
    """
    problems = [*_oddities(model, data), *(problem for node in model.graph.node for problem in _long_attributes(node))]
    found = dict(_tensors(model.graph))
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, tensor in found.items():
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            problems.append(f"{name} is kept in another file")
        else:
            arrays[name] = numpy_helper.to_array(tensor)
    affine, roles = _affine(model.graph, arrays)
    used = {name for node in model.graph.node for name in node.input} | {output.name for output in model.graph.output}
    problems += [f"{name} is not used by any node" for name in arrays if name not in used and "/" not in name]
    tensors = tuple(
        FileTensor(name, array, affine=affine.get(name), role=roles.get(name, "")) for name, array in arrays.items()
    )
    for tensor in found.values():
        for part in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            tensor.ClearField(part)
    del model.metadata_props[:]
    limit = 2048 + 512 * (len(model.graph.node) + len(tensors))
    return Contents(tensors, model.SerializeToString(), limit, tuple(problems), tuple(_numbers(model.graph)))


def _oddities(model: onnx.ModelProto, data: bytes) -> Iterator[str]:
    if len(model.SerializeToString(deterministic=True)) != len(data):
        yield "the file has bytes that its model does not account for"
    known = onnx.ModelProto()
    known.CopyFrom(model)
    known.DiscardUnknownFields()
    if known.ByteSize() != model.ByteSize():
        yield "the model has fields that ONNX does not know"
    for part in ("functions", "training_info"):
        if len(getattr(model, part)):
            yield f"the model has {part}"
    if len(model.graph.sparse_initializer) or len(model.graph.quantization_annotation):
        yield "the graph has sparse tensors or annotations of quantisation"
    yield from (f"the file has an entry of metadata '{e.key}'" for e in model.metadata_props if e.key != METADATA_KEY)
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    entries = (model, model.graph, *model.graph.node, *model.graph.initializer, *values)
    for entry in entries:
        if entry.doc_string or (entry is not model and len(entry.metadata_props)):
            yield f"{entry.name if entry is not model else 'the model'} has a text beside what it does"


def _long_attributes(node: onnx.NodeProto) -> Iterator[str]:
    for attribute in node.attribute:
        numbers = max(len(attribute.floats), len(attribute.ints), len(attribute.strings))
        text = max((len(value) for value in (attribute.s, *attribute.strings)), default=0)
        if numbers > _MOST_NUMBERS or text > _MOST_TEXT:
            yield f"attribute {attribute.name} of {node.name} holds {numbers} numbers and {text} characters"
        if attribute.HasField("g") or attribute.graphs:
            yield f"{node.name} has a graph of its own"


def _numbers(graph: onnx.GraphProto) -> Iterator[float]:
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        given = [attribute.f] if attribute.type == onnx.AttributeProto.FLOAT else []
        yield from telling((*given, *attribute.floats, attribute.i, *attribute.ints))


def _tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for index, tensor in enumerate(graph.initializer):
        yield tensor.name or f"initializer/{index}", tensor
    for node in graph.node:
        for attribute in node.attribute:
            for index, tensor in enumerate((attribute.t, *attribute.tensors)):
                if tensor.data_type:
                    name = node.output[0] if node.op_type == "Constant" else f"{node.name}/{attribute.name}/{index}"
                    yield name, tensor


def _affine(graph: onnx.GraphProto, arrays: dict[str, NDArray[np.generic]]) -> tuple[dict[str, Affine], dict[str, str]]:
    affine: dict[str, Affine] = {}
    roles: dict[str, str] = {}
    for node in graph.node:
        if node.op_type not in _QUANTISED:
            continue
        (values, scale, zero), bias, activation = _QUANTISED[node.op_type]
        if node.input[values] not in arrays:
            continue
        step = arrays[node.input[scale]].astype(np.float64)
        has_zero = len(node.input) > zero and node.input[zero]
        origin = arrays[node.input[zero]].astype(np.float64) if has_zero else np.zeros_like(step)
        affine[node.input[values]] = Affine(step, origin, _axis(node))
        roles[node.input[scale]] = f"scale of {node.input[values]}"
        if bias is not None and activation is not None and len(node.input) > bias and node.input[bias] in arrays:
            product = step * arrays[node.input[activation]].astype(np.float64)
            affine[node.input[bias]] = Affine(product, np.zeros_like(product), 0)
    return affine, roles


def _axis(node: onnx.NodeProto) -> int:
    given = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "QLinearConv":
        return 0
    if node.op_type == "QGemm":
        return 0 if given.get("transB") else 1
    return int(given.get("axis", 1))
