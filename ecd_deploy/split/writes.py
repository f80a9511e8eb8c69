"""What the nodes of an exported graph read, where operations write to memory in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ecd_deploy.compat.torch import is_higher_order, schema_of, storage_identity, traced_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.export import ExportedProgram
    from torch.fx import Node

# Each writes to its first argument a value that depends on what was there, as that of its functional form does.
_KEEPING = frozenset(
    f"aten::{name}_"
    for name in (
        *("add", "sub", "mul", "div", "addcmul", "addcdiv", "baddbmm", "clamp", "clamp_min", "clamp_max", "detach"),
        *("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish"),
        *("hardtanh", "hardswish", "hardsigmoid", "sigmoid", "tanh"),
    )
)


def are_followed(program: ExportedProgram) -> bool:
    """Whether `sources` tells all that writes do: each keeps what was there, and none goes to an input of the graph."""
    writes = [node for node in program.graph.nodes if _writes(node)]
    if not writes and not program.graph_signature.buffers_to_mutate:
        return True
    inputs = {_memory(node) for node in program.graph.nodes if node.op == "placeholder"}
    return not (
        program.graph_signature.buffers_to_mutate
        or any((schema := schema_of(node.target)) is None or schema.name not in _KEEPING for node in writes)
        or any(_memory(_target(node)) in {None, *inputs} for node in writes)
        or any(is_higher_order(node.target) for node in program.graph.nodes)
    )


def sources(program: ExportedProgram) -> Mapping[Node, tuple[Node, ...]]:
    """For each node its inputs, and the nodes that wrote to their memory before it; of the output, only the first.

    Memory is that of the tensors that the tracer ran with: all views of a tensor have it in common.
    """
    first = program.graph_signature.user_outputs[0]
    writers: dict[int | None, list[Node]] = {}
    found: dict[Node, tuple[Node, ...]] = {}
    for node in program.graph.nodes:
        inputs = [source for source in node.all_input_nodes if node.op != "output" or source.name == first]
        read = {_memory(source) for source in inputs} - {None}
        found[node] = (*inputs, *(writer for memory in read for writer in writers.get(memory, ())))
        if _writes(node):
            writers.setdefault(_memory(_target(node)), []).append(node)
    return found


def _writes(node: Node) -> bool:
    schema = schema_of(node.target)
    return node.op == "call_function" and schema is not None and bool(schema.is_mutable)


def _target(node: Node) -> Node:
    return node.all_input_nodes[0]


def _memory(node: Node) -> int | None:
    value = traced_value(node)
    return storage_identity(value) if isinstance(value, Tensor) else None
