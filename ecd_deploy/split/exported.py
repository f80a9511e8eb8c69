"""The `torch.export` graph of a model: made without a trace left on the model, and walked backwards."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from ecd_deploy.compat.torch import is_fresh_copy, own_buffers, own_parameters
from ecd_deploy.errors import SplitError, reraise_machine_fault
from ecd_deploy.quiet import library_quiet
from ecd_deploy.split.writes import are_followed, sources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.fx import Node


LITERAL_ELEMENTS = 4
"""What a forward may spell out at most, in one list; longer ones are tensors that must be registered."""

_LITERAL = "ecd_deploy_literal"


@dataclass(frozen=True)
class Reached:
    """An input of the graph that the outcome depends on.

    Attributes:
        name: of the parameter, buffer or constant in the model, or of the input.
        kind: as `torch.export` calls it.
        tensor: what stands there; None for an input of the user's.
        path: operations from the outcome to it.
        literal: whether it is a number or a short list that the forward spells out.
    """

    name: str
    kind: InputKind
    tensor: Tensor | None
    path: tuple[str, ...]
    literal: bool


@dataclass(frozen=True)
class Slice:
    """What the first output of a graph depends on, and how many nodes that takes."""

    inputs: tuple[Reached, ...]
    nodes: int


def exported_program(
    module: nn.Module, images: Tensor, *, functionalise: bool = True, any_batch: bool = False
) -> ExportedProgram:
    """Export a module, not strictly; if `functionalise`, `sources` tells every effect in the graph afterwards.

    The graph is for as many images as are given, or for any number of them.

    Attributes of the modules are what they were afterwards; values and random state are the caller's to keep.

    Raises:
        SplitError: `torch.export` cannot express the module.
    """
    with _expressing(type(module).__name__), _attributes_kept(module):
        shapes = ({0: torch.export.Dim("batch")},) if any_batch else None
        program = torch.export.export(module, (images,), dynamic_shapes=shapes, strict=False)
    return functional(program) if functionalise and not are_followed(program) else program


def first_output(program: ExportedProgram) -> Slice:
    """Walk back from the first output that is the user's, also through memory that was written to."""
    read = sources(program)
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    origins: dict[Node, Node | None] = dict.fromkeys(read[output])
    queue = deque(origins)
    while queue:
        node = queue.popleft()
        for source in read[node]:
            if source not in origins:
                origins[source] = node
                queue.append(source)
    specifications = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    inputs = []
    for node in origins:
        if node.op != "placeholder":
            continue
        spec = specifications[node.name]
        name = spec.target or node.name
        tensor = tensor_of(program, spec.kind, name)
        inputs.append(Reached(name, spec.kind, tensor, _operations(node, origins), is_literal(node, tensor)))
    return Slice(tuple(inputs), len(origins))


def tensor_of(program: ExportedProgram, kind: InputKind, name: str) -> Tensor | None:
    """The tensor that stands at an input of the graph, None for an input of the user's."""
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


def is_literal(node: Node, tensor: Tensor | None) -> bool:
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
    literals = {name: tensor for name, node, tensor in _constants(program) if is_literal(node, tensor)}
    with _expressing("the graph without writes"):
        program = program.run_decompositions({})
    for name, node, tensor in _constants(program):
        if name in literals and literals[name] is tensor:
            node.meta[_LITERAL] = True
    return program


def _constants(program: ExportedProgram) -> Iterator[tuple[str, Node, Tensor | None]]:
    specifications = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    for node in program.graph.nodes:
        if node.op == "placeholder" and specifications[node.name].kind is InputKind.CONSTANT_TENSOR:
            name = specifications[node.name].target or node.name
            yield name, node, tensor_of(program, InputKind.CONSTANT_TENSOR, name)


def _operations(node: Node, origins: dict[Node, Node | None]) -> tuple[str, ...]:
    steps: list[str] = []
    step = origins[node]
    while step is not None:
        steps.append(str(step.target))
        step = origins[step]
    return tuple(reversed(steps))
