"""Check: what the student's logits are computed from, by the `torch.export` graph of the joint forward.

The second of two walks: unlike the autograd graph it also shows buffers, constants and detached features.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from torch import Tensor
from torch.export.graph_signature import InputKind

from ecd_deploy.errors import SplitError
from ecd_deploy.split.checks.dataflow import shown_path
from ecd_deploy.split.checks.unused import is_listed, unreached
from ecd_deploy.split.exported import GraphInput, Slice, exported_program, first_output, functional
from ecd_deploy.split.identity import Computation, computation
from ecd_deploy.split.inventory import auxiliary_tensors, named_tensors
from ecd_deploy.split.records import TensorKind
from ecd_deploy.split.results import GraphResult, listed
from ecd_deploy.split.storages import StorageIndex
from ecd_deploy.split.writes import are_followed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from torch import nn

    from ecd_deploy.distill import TrainingModel

MOST_NUMBERS = 24
"""Different numbers in the graph of a student that has no fresh build beside it; usual are fewer than twelve."""
MOST_CHANGES = 160
"""How often such a number may differ from the one before it at the same place of the same operator."""
_SHOWN_NUMBERS = 8
_EXPECTED: dict[InputKind, tuple[TensorKind, ...]] = {
    InputKind.PARAMETER: ("parameter",),
    InputKind.BUFFER: ("buffer",),
    InputKind.CONSTANT_TENSOR: ("attribute", "buffer"),
}


def check_graph(
    model: TrainingModel, images: Tensor, fresh: nn.Module | None, unused: Collection[str] = ()
) -> GraphResult:
    """Export the joint model and the student that leaves, and compare how the student's logits are computed in both.

    Every parameter, buffer and constant that is reached must be the student's own; those that are not reached must be
    listed. The operations and numbers must be those of the student that leaves. If neither can be exported, that is
    recorded as not done; if only the joint model cannot, the student is refused: its own graph shows that
    `torch.export` is not what is in the way. Call within `preserved(model)`.

    Args:
        model: the joint model.
        images: (N, C, H, W).
        fresh: a fresh build with the trained values; None if there is none, the student alone stands in for it.
        unused: names of the student's tensors, or of modules that hold them, that need not be reached.
    """
    reference = model.student if fresh is None else fresh
    try:
        expected = exported_program(reference, images)
    except SplitError as error:
        return GraphResult(passed=True, findings=(), not_done_reason=str(error))
    try:
        exported = exported_program(model, images)
        # The functional form of a graph has other operators: it takes both or none to compare them.
        if not (are_followed(expected) and are_followed(exported)):
            expected, exported = functional(expected), functional(exported)
    except SplitError as error:
        return GraphResult(passed=False, findings=(f"{error}, though it can express the student",))
    joint = first_output(exported)
    own = {id(entry.tensor): entry for entry in named_tensors(model.student, "student")}
    foreign = auxiliary_tensors(model.auxiliary())
    index = StorageIndex(foreign)
    foreign_ids = {id(entry.tensor): entry.name for entry in foreign}
    findings: list[str] = []
    reached: set[str] = set()
    for found in joint.inputs:
        if found.kind is InputKind.USER_INPUT or found.literal:
            continue
        entry = None if found.tensor is None else own.get(id(found.tensor))
        if found.tensor is not None and id(found.tensor) in foreign_ids:
            findings.append(shown_path(found.path, foreign_ids[id(found.tensor)]))
        elif entry is not None and entry.kind in _EXPECTED.get(found.kind, ()):
            reached.add(entry.name)
        else:
            findings.append(shown_path(found.path, _stranger(found, index)))
    findings += _differences({f"student.{name}" for name in _names(first_output(expected))}, _names(joint))
    found_there, expected_there = computation(exported, model.student), computation(expected, reference)
    if not findings and found_there.digest != expected_there.digest:
        findings.append(_other(found_there, expected_there, "alone" if fresh is None else "in a fresh build"))
    unread = unreached(model.student, {name.removeprefix("student.") for name in reached})
    kept = tuple(name for name in unread if is_listed(name, unused))
    findings += [
        f"nothing reads student.{name}: take it out, or list it as unused" for name in unread if name not in kept
    ]
    if fresh is None:
        findings += _spelled_out(expected_there)
    return GraphResult(
        findings=listed(findings),
        passed=not findings,
        nodes=joint.nodes,
        reached=tuple(sorted(reached)),
        unused=kept,
        literals=sum(found.literal for found in joint.inputs),
        numbers=len(set(expected_there.numbers)),
        auxiliary_tensors=len(foreign),
    )


def _spelled_out(alone: Computation) -> Iterator[str]:
    """What a fresh build would tell: whether the numbers of a forward were always there."""
    different = len(set(alone.numbers))
    if different > MOST_NUMBERS:
        yield (
            f"the student's forward spells out {different} different numbers: more than {MOST_NUMBERS} may be weights"
        )
    if alone.changes > MOST_CHANGES:
        yield (
            f"the numbers that the student's forward spells out change {alone.changes} times from operation to "
            f"operation: more than {MOST_CHANGES} may be weights"
        )


def _other(found: Computation, expected: Computation, where: str) -> str:
    rest = list((Counter(found.numbers) - Counter(expected.numbers)).elements())
    if rest:
        shown = ", ".join(f"{number:.6g}" for number in rest[:_SHOWN_NUMBERS])
        return f"the student's forward spells out {len(rest)} numbers that are not there {where}: {shown}"
    other = found.first_other(expected)
    if other is None:
        return f"the student's logits are computed otherwise than {where}"
    return f"the operation {other.name} in {other.module or 'the joint forward'} is not there {where}"


def _names(graph: Slice) -> set[str]:
    kinds = (InputKind.PARAMETER, InputKind.BUFFER)
    return {found.name for found in graph.inputs if found.kind in kinds}


def _differences(alone: set[str], joint: set[str]) -> list[str]:
    lost = [f"the logits of the joint forward do not depend on {name}, alone they do" for name in sorted(alone - joint)]
    return lost + [f"alone, the student's logits do not depend on {name}" for name in sorted(joint - alone)]


def _stranger(found: GraphInput, index: StorageIndex) -> str:
    if found.tensor is None:
        return f"{found.name}, which is no tensor"
    sharing = index.sharing(found.tensor)
    if sharing:
        return f"a constant in the storage of {sharing[0]}"
    return f"an unknown constant of shape {tuple(found.tensor.shape)}"
