"""Check: what the student's logits are computed from, by the `torch.export` graph of the joint forward.

The second of two walks: unlike the autograd graph it also shows buffers, constants and detached features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.export.graph_signature import InputKind

from ecd_deploy.errors import SplitError
from ecd_deploy.split.checks.dataflow import shown_path
from ecd_deploy.split.exported import Reached, Slice, exported_program, first_output
from ecd_deploy.split.inventory import auxiliary_tensors, named_tensors
from ecd_deploy.split.records import TensorKind
from ecd_deploy.split.results import GraphResult, listed
from ecd_deploy.split.storages import StorageIndex

if TYPE_CHECKING:
    from ecd_deploy.distill import TrainingModel

_EXPECTED: dict[InputKind, tuple[TensorKind, ...]] = {
    InputKind.PARAMETER: ("parameter",),
    InputKind.BUFFER: ("buffer",),
    InputKind.CONSTANT_TENSOR: ("attribute", "buffer"),
}


def check_graph(model: TrainingModel, images: Tensor) -> GraphResult:
    """Export the joint model and the student alone, and compare what the student's logits reach in both.

    Every parameter, buffer and constant that is reached must be the student's own, and the same ones must be
    reached by the student alone. If neither can be exported, that is recorded as not done; if only the joint
    model cannot, the student is refused: its own graph shows that `torch.export` is not what is in the way.
    Call within `preserved(model)`.
    """
    try:
        alone = first_output(exported_program(model.student, images))
    except SplitError as error:
        return GraphResult(passed=True, findings=(), not_done_reason=str(error))
    try:
        joint = first_output(exported_program(model, images))
    except SplitError as error:
        return _result([f"{error}, though it can express the student"], Slice((), 0), [], 0)
    own = {id(entry.tensor): entry for entry in named_tensors(model.student, "student")}
    foreign = auxiliary_tensors(model.auxiliary())
    index = StorageIndex(foreign)
    foreign_ids = {id(entry.tensor): entry.name for entry in foreign}
    findings: list[str] = []
    reached: list[str] = []
    for found in joint.inputs:
        if found.kind is InputKind.USER_INPUT or found.literal:
            continue
        entry = None if found.tensor is None else own.get(id(found.tensor))
        if found.tensor is not None and id(found.tensor) in foreign_ids:
            findings.append(shown_path(found.path, foreign_ids[id(found.tensor)]))
        elif entry is not None and entry.kind in _EXPECTED.get(found.kind, ()):
            reached.append(entry.name)
        else:
            findings.append(shown_path(found.path, _stranger(found, index)))
    findings += _differences({f"student.{name}" for name in _names(alone)}, _names(joint))
    return _result(findings, joint, reached, len(foreign))


def _names(graph: Slice) -> set[str]:
    kinds = (InputKind.PARAMETER, InputKind.BUFFER)
    return {found.name for found in graph.inputs if found.kind in kinds}


def _differences(alone: set[str], joint: set[str]) -> list[str]:
    lost = [f"the logits of the joint forward do not depend on {name}, alone they do" for name in sorted(alone - joint)]
    return lost + [f"alone, the student's logits do not depend on {name}" for name in sorted(joint - alone)]


def _stranger(found: Reached, index: StorageIndex) -> str:
    if found.tensor is None:
        return f"{found.name}, which is no tensor"
    sharing = index.sharing(found.tensor)
    if sharing:
        return f"a constant in the storage of {sharing[0]}"
    return f"an unknown constant of shape {tuple(found.tensor.shape)}"


def _result(findings: list[str], joint: Slice, reached: list[str], foreign: int) -> GraphResult:
    literals = sum(found.literal for found in joint.inputs)
    return GraphResult(
        findings=listed(findings),
        passed=not findings,
        nodes=joint.nodes,
        reached=tuple(sorted(reached)),
        literals=literals,
        auxiliary_tensors=foreign,
    )
