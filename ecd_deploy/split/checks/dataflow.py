"""Check: what the student's logits are computed from, by the autograd graph of the joint forward."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ecd_deploy.errors import SplitError
from ecd_deploy.split.checks.unused import is_listed
from ecd_deploy.split.inventory import auxiliary_tensors, named_tensors
from ecd_deploy.split.joint import joint_logits
from ecd_deploy.split.results import DataflowResult, listed

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch.autograd.graph import Node

    from ecd_deploy.distill import TrainingModel

_SHOWN_STEPS = 12


@dataclass(frozen=True)
class _Leaf:
    variable: Tensor
    path: tuple[str, ...]
    """Operations from the logits to the leaf."""


@dataclass(frozen=True)
class _Walk:
    leaves: tuple[_Leaf, ...]
    nodes: int


@dataclass(frozen=True)
class Ends:
    """Where the autograd graph of the student's logits ends."""

    findings: list[str]
    lost: list[str]
    """Findings of another kind: parameters that it should reach and does not."""
    reached: tuple[str, ...]
    """Names of the student's parameters."""
    nodes: int


def check_dataflow(model: TrainingModel, images: Tensor, unused: Collection[str] = ()) -> DataflowResult:
    """Walk back from the student's logits of the joint forward to the leaves, and name them.

    Auxiliary parameters that are frozen are made visible to autograd first. A leaf that is no parameter of the
    student is an offence, whatever it is; so is a trainable parameter of the student that is neither reached nor
    listed as unused.
    Call within `preserved(model)`.
    """
    make_visible(model)
    try:
        with torch.enable_grad():
            ends = graph_ends(model, joint_logits(model, images.detach()), unused)
    except SplitError as error:
        ends = Ends([str(error)], [], (), 0)
    findings = ends.findings + ends.lost
    return DataflowResult(
        findings=listed(findings),
        passed=not findings,
        nodes=ends.nodes,
        reached=ends.reached,
        auxiliary_parameters=len(_auxiliary_parameters(model)),
    )


def graph_ends(model: TrainingModel, logits: Tensor, unused: Collection[str]) -> Ends:
    """Walk back from logits that the joint model just gave, and judge every leaf."""
    own = {id(entry.tensor): entry for entry in named_tensors(model.student, "student") if entry.kind == "parameter"}
    foreign = _auxiliary_parameters(model)
    findings: list[str] = []
    reached: set[int] = set()
    walk = _walk_back(logits)
    for leaf in walk.leaves:
        identity = id(leaf.variable)
        if identity in foreign:
            findings.append(shown_path(leaf.path, foreign[identity]))
        elif identity in own:
            reached.add(identity)
        else:
            findings.append(shown_path(leaf.path, f"an unknown tensor of shape {tuple(leaf.variable.shape)}"))
    lost = [
        f"the student's logits do not depend on {entry.name}"
        for identity, entry in own.items()
        if entry.tensor.requires_grad
        and identity not in reached
        and identity not in foreign
        and not is_listed(entry.name.removeprefix("student."), unused)
    ]
    return Ends(findings, lost, tuple(sorted(own[identity].name for identity in reached)), walk.nodes)


def _auxiliary_parameters(model: TrainingModel) -> dict[int, str]:
    return {id(entry.tensor): entry.name for entry in auxiliary_tensors(model.auxiliary()) if entry.kind == "parameter"}


def make_visible(model: TrainingModel) -> None:
    """Let autograd see the auxiliary parameters that are frozen."""
    own = {id(parameter) for parameter in model.student.parameters()}
    for module in model.auxiliary().values():
        for parameter in module.parameters():
            if id(parameter) not in own and parameter.is_floating_point():
                parameter.requires_grad_(True)


def leaves(tensor: Tensor) -> tuple[Tensor, ...]:
    """The tensors with a gradient that a tensor was computed from."""
    return tuple(leaf.variable for leaf in _walk_back(tensor).leaves)


def _walk_back(logits: Tensor) -> _Walk:
    if logits.grad_fn is None:
        return _Walk((_Leaf(logits, ()),) if logits.requires_grad else (), 0)
    found: list[_Leaf] = []
    origins: dict[Node, Node | None] = {logits.grad_fn: None}
    queue = deque([logits.grad_fn])
    while queue:
        node = queue.popleft()
        variable = getattr(node, "variable", None)
        if isinstance(variable, Tensor):
            found.append(_Leaf(variable, _operations(node, origins)))
        for successor, _ in node.next_functions:
            if successor is not None and successor not in origins:
                origins[successor] = node
                queue.append(successor)
    return _Walk(tuple(found), len(origins))


def _operations(node: Node, origins: dict[Node, Node | None]) -> tuple[str, ...]:
    steps: list[str] = []
    step = origins[node]
    while step is not None:
        steps.append(step.name())
        step = origins[step]
    return tuple(reversed(steps))


def shown_path(operations: tuple[str, ...], name: str) -> str:
    """The way from the logits back to what was found there."""
    if len(operations) > _SHOWN_STEPS:
        half = _SHOWN_STEPS // 2
        skipped = f"({len(operations) - 2 * half} more)"
        operations = (*operations[:half], skipped, *operations[-half:])
    return " <- ".join(("the student's logits", *operations, name))
