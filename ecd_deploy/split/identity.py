"""Whether two exported graphs compute the same, operation by operation, and the numbers that a graph spells out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.export.graph_signature import InputKind
from torch.fx import GraphModule, Node

from ecd_deploy.compat.torch import innermost_module, schema_of
from ecd_deploy.files import sha256_bytes
from ecd_deploy.split.exported import GraphInput, graph_inputs, walk_back
from ecd_deploy.split.inventory import named_tensors, tensor_bytes
from ecd_deploy.split.writes import sources

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch.export import ExportedProgram

_LARGE = 2**16
"""Smaller integers are sizes, strides and places of dimensions."""
_END = 2**63 - 1
"""What stands for an open end of a slice."""

# They hand on the values that they are given, in another layout of memory.
_LAYOUT = (torch.ops.aten.contiguous.default, torch.ops.aten.clone.default)


@dataclass(frozen=True)
class Operation:
    """A node of a graph by what it computes: a digest over it and all that it depends on."""

    digest: str
    name: str
    module: str
    """Path of the module that it was called in."""


@dataclass(frozen=True)
class Computation:
    """How the first output of a graph is computed.

    Attributes:
        operations: all that it takes, in the order of the graph; the last gives the output.
        numbers: every one that the operations spell out, as often as it stands there.
        changes: how often one differs from the one before it at the same place of the same operator; what a network
            repeats layer by layer changes hardly ever, a message in few different numbers does.
    """

    operations: tuple[Operation, ...]
    numbers: tuple[float, ...]
    changes: int

    @property
    def digest(self) -> str:
        """Equal for two graphs that compute the same of the same tensors."""
        return self.operations[-1].digest

    def first_other(self, expected: Computation) -> Operation | None:
        """The first operation that the other has not; None if it has all of them."""
        known = {operation.digest for operation in expected.operations}
        return next((operation for operation in self.operations if operation.digest not in known), None)


def computation(program: ExportedProgram, student: nn.Module) -> Computation:
    """Describe how the first output is computed; the student's own tensors go by their names in it."""
    names = {id(entry.tensor): entry.name for entry in named_tensors(student) if entry.kind != "attribute"}
    inputs, read = graph_inputs(program), sources(program)
    digests: dict[Node, str] = {}
    operations: dict[Node, Operation] = {}
    numbers: dict[Node, tuple[float, ...]] = {}
    for node in program.graph.nodes:
        if (found := inputs.get(node)) is not None:
            digests[node] = _input(found, names)
            if found.literal and found.tensor is not None:
                numbers[node] = tuple(float(value) for value in found.tensor.detach().flatten().tolist())
            continue
        if node.op == "output":
            continue
        written = [digests[writer] for writer in read[node] if writer not in node.all_input_nodes]
        if node.target in _LAYOUT and not written:
            digests[node] = digests[node.all_input_nodes[0]]
            continue
        text = _operation(node, digests, program.graph_module)
        digests[node] = sha256_bytes("\n".join((text, *written)).encode())
        operations[node] = Operation(digests[node], str(node.target), innermost_module(node))
        numbers[node] = tuple(_numbers_of(node))
    needed = walk_back(program, read)
    spelled = {node: numbers[node] for node in numbers if node in needed}
    return Computation(
        tuple(operation for node, operation in operations.items() if node in needed),
        tuple(number for found in spelled.values() for number in found),
        _changes(spelled),
    )


def _changes(numbers: Mapping[Node, tuple[float, ...]]) -> int:
    before: dict[tuple[str, int], float] = {}
    changes = 0
    for node, found in numbers.items():
        operator = "literal" if node.op == "placeholder" else str(node.target)
        for key, number in (((operator, place), number) for place, number in enumerate(found)):
            changes += before.get(key, number) != number
            before[key] = number
    return changes


def _input(found: GraphInput, names: Mapping[int, str]) -> str:
    tensor = found.tensor
    if found.kind is InputKind.USER_INPUT:
        return "images"
    if tensor is None:
        return str(found.kind)
    return names.get(id(tensor)) or f"{tensor.dtype} {tuple(tensor.shape)} {sha256_bytes(tensor_bytes(tensor))}"


def _operation(node: Node, digests: Mapping[Node, str], owner: nn.Module) -> str:
    if node.op == "get_attr":
        inner = getattr(owner, str(node.target), None)
        return _graph(inner) if isinstance(inner, GraphModule) else f"attribute {node.target}"
    arguments = (_shown(node.args, digests), _shown(tuple(sorted(node.kwargs.items())), digests))
    return " ".join((node.op, str(node.target), *arguments))


def _graph(inner: GraphModule) -> str:
    """A graph that an operator runs, such as a branch of `cond`; its inputs go by their places."""
    digests: dict[Node, str] = {}
    for place, node in enumerate(inner.graph.nodes):
        text = f"input {place}" if node.op == "placeholder" else _operation(node, digests, inner)
        digests[node] = sha256_bytes(text.encode())
    return "graph " + " ".join(digests.values())


def _shown(value: Any, digests: Mapping[Node, str]) -> str:
    if isinstance(value, Node):
        return digests[value]
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_shown(item, digests) for item in value)}]"
    return repr(value)


def _numbers_of(node: Node) -> Iterator[float]:
    schema = schema_of(node.target)
    defaults = {} if schema is None else {argument.name: argument.default_value for argument in schema.arguments}
    names = [] if schema is None else [argument.name for argument in schema.arguments]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs} if names else dict(enumerate(node.args))
    for name, value in given.items():
        if name not in defaults or value != defaults[name]:
            yield from _flat(value)


def _flat(value: object) -> Iterator[float]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item)
    elif isinstance(value, complex):
        yield from (value.real, value.imag)
    elif isinstance(value, float) or (type(value) is int and _LARGE <= abs(value) < _END):
        yield float(value)
