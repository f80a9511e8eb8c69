"""The tensors of an .ort file: a flatbuffer, whose weights onnxruntime may have laid out in blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import helper

from ecd_deploy.compat.onnxruntime import Graph, Tensor, ort_session
from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.files.contents import Contents, FileTensor, telling


def read_ort(data: bytes) -> Contents:
    """Read an .ort file.

    Raises:
        ExportError: it is none.
    """
    try:
        graph = ort_session(data).Model().Graph()
        tensors = tuple(_tensor(graph.Initializers(index)) for index in range(graph.InitializersLength()))
        problems = _problems(graph)
    except Exception as error:
        reraise_machine_fault(error)
        raise ExportError(f"not an ort artefact: {error}") from error
    # The flatbuffer refers to its tensors by offset: what is left without their bytes is the overhead.
    overhead = data
    for tensor in sorted(tensors, key=lambda tensor: -tensor.array.nbytes):
        overhead = overhead.replace(tensor.array.tobytes(), b"", 1) if tensor.array.nbytes > 64 else overhead
    limit = 32_768 + 2048 * (graph.NodesLength() + len(tensors))
    return Contents(tensors, overhead, limit, tuple(problems), tuple(_numbers(graph)))


def _tensor(tensor: Tensor.Tensor) -> FileTensor:
    dtype = helper.tensor_dtype_to_np_dtype(tensor.DataType())
    shape = [tensor.Dims(index) for index in range(tensor.DimsLength())]
    content = tensor.RawDataAsNumpy()
    raw = content.tobytes() if isinstance(content, np.ndarray) else b""
    return FileTensor(tensor.Name().decode(), np.frombuffer(raw, dtype=dtype).reshape(shape), role="blocked")


def _numbers(graph: Graph.Graph) -> Iterator[float]:
    for node in (graph.Nodes(index) for index in range(graph.NodesLength())):
        for attribute in (node.Attributes(index) for index in range(node.AttributesLength())):
            floats = [attribute.Floats(index) for index in range(attribute.FloatsLength())]
            integers = [attribute.Ints(index) for index in range(attribute.IntsLength())]
            yield from telling((attribute.F(), *floats, attribute.I(), *integers))


def _problems(graph: Graph.Graph) -> list[str]:
    initializers = (graph.Initializers(index) for index in range(graph.InitializersLength()))
    problems = [f"{t.Name().decode()} is kept in another file" for t in initializers if t.ExternalDataOffset() >= 0]
    if graph.SparseInitializersLength():
        problems.append("the graph has sparse tensors")
    return problems
