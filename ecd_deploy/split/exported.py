"""The `torch.export` graph of a model: made without a trace left on the model, and walked backwards."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from ecd_deploy.compat.torch import is_fresh_copy, own_buffers, own_parameters
from ecd_deploy.errors import SplitError, reraise_machine_fault
from ecd_deploy.quiet import library_quiet
from ecd_deploy.split.writes import sources

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch.fx import Node


LITERAL_ELEMENTS = 4
"""What a forward may spell out at most, in one list; longer ones are tensors that must be registered."""

_LITERAL = "ecd_deploy_literal"


@dataclass(frozen=True)
class GraphInput:
    """An input of a graph.

    Attributes:
        name: of the parameter, buffer or constant in the model, or of the input.
        kind: as `torch.export` calls it.
        tensor: what stands there; None for an input of the user's.
        literal: whether it is a number or a short list that the forward spells out.
        path: operations from the outcome to it, where these were followed.
    """

    name: str
    kind: InputKind
    tensor: Tensor | None
    literal: bool
    path: tuple[str, ...] = ()


@dataclass(frozen=True)
class Slice:
    """What the first output of a graph depends on, and how many nodes that takes."""

    inputs: tuple[GraphInput, ...]
    nodes: int


def exported_program(module: nn.Module, images: Tensor, *, any_batch: bool = False) -> ExportedProgram:
    """Export a module, not strictly, for as many images as are given or for any number of them.

    Attributes of the modules are what they were afterwards; values and random state are the caller's to keep.

    Raises:
        SplitError: `torch.export` cannot express the module.
    """
    with _expressing(type(module).__name__), _attributes_kept(module):
        shapes = ({0: torch.export.Dim("batch")},) if any_batch else None
        return torch.export.export(module, (images,), dynamic_shapes=shapes, strict=False)


def first_output(program: ExportedProgram) -> Slice:
    """Walk back from the first output that is the user's, also through memory that was written to."""
    inputs, origins = graph_inputs(program), walk_back(program, sources(program))
    reached = (replace(inputs[node], path=_operations(node, origins)) for node in origins if node in inputs)
    return Slice(tuple(reached), len(origins))


def walk_back(program: ExportedProgram, read: Mapping[Node, tuple[Node, ...]]) -> dict[Node, Node | None]:
    """All that the first output depends on, the nearest first, and for each node the one that it was met from.

    Args:
        program: the graph.
        read: `sources` of it.
    """
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    origins: dict[Node, Node | None] = dict.fromkeys(read[output])
    queue = deque(origins)
    while queue:
        node = queue.popleft()
        for source in read[node]:
            if source not in origins:
                origins[source] = node
                queue.append(source)
    return origins


def graph_inputs(program: ExportedProgram) -> dict[Node, GraphInput]:
    """Every input of the graph, in its order."""
    specifications = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    inputs = {}
    for node in program.graph.nodes:
        if node.op == "placeholder":
            spec = specifications[node.name]
            name = spec.target or node.name
            tensor = _tensor_of(program, spec.kind, name)
            inputs[node] = GraphInput(name, spec.kind, tensor, _is_literal(node, tensor))
    return inputs


def _tensor_of(program: ExportedProgram, kind: InputKind, name: str) -> Tensor | None:
    if kind in (InputKind.PARAMETER, InputKind.BUFFER) and name in program.state_dict:
        found: object = program.state_dict[name]
    else:
        found = program.constants.get(name)
    return found if isinstance(found, Tensor) else None


@contextmanager
def _expressing(what: str) -> Iterator[None]:
    try:
        with library_quiet():
            yield
    except Exception as error:
        reraise_machine_fault(error)
        first_line = next(iter(str(error).strip().splitlines()), "")
        raise SplitError(f"torch.export cannot express {what}: {first_line}") from error


@contextmanager
def _attributes_kept(module: nn.Module) -> Iterator[None]:
    """Put back what a forward assigns to its module: under `torch.export` that would be a tensor without data."""
    tables: list[dict[str, Any]] = [
        table for child in module.modules() for table in (vars(child), own_parameters(child), own_buffers(child))
    ]
    kept = [(table, dict(table)) for table in tables]
    try:
        yield
    finally:
        for table, content in kept:
            if table.keys() != content.keys() or any(table[key] is not content[key] for key in content):
                table.clear()
                table.update(content)


def _is_literal(node: Node, tensor: Tensor | None) -> bool:
    """`torch.tensor(...)` in a forward is copied fresh by the tracer; a tensor that is held somewhere is not."""
    if tensor is None or tensor.numel() > LITERAL_ELEMENTS:
        return False
    return _LITERAL in node.meta or all(is_fresh_copy(user.target) for user in node.users)


def functional(program: ExportedProgram) -> ExportedProgram:
    """Make every write an edge of the graph; costs several times the export, so only where it must be.

    In the result a literal's fresh copy is a copy as any other: literals are marked before.

    Raises:
        SplitError: torch cannot.
    """
    constants = (found for found in graph_inputs(program).values() if found.kind is InputKind.CONSTANT_TENSOR)
    literals = {found.name: found.tensor for found in constants if found.literal}
    with _expressing("the graph without writes"):
        program = program.run_decompositions({})
    for node, found in graph_inputs(program).items():
        if found.name in literals and literals[found.name] is found.tensor:
            node.meta[_LITERAL] = True
    return program


def _operations(node: Node, origins: dict[Node, Node | None]) -> tuple[str, ...]:
    steps: list[str] = []
    step = origins[node]
    while step is not None:
        steps.append(str(step.target))
        step = origins[step]
    return tuple(reversed(steps))
