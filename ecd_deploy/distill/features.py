"""Where the features of student and teacher are compared by a loss: paper, section 4.3 and table 5."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ecd_deploy.distill.connections import ConnectionSite
from ecd_deploy.errors import StudentError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ecd_deploy.distill.hooks import FeatureQueues
    from ecd_deploy.distill.teacher import TeacherReport
    from ecd_deploy.recipe.method import Features


def compared_sites(report: TeacherReport, features: Features, stages: Iterable[int]) -> tuple[ConnectionSite, ...]:
    """List the blocks after which features are compared: each stage's last, or each one of the given stages.

    Raises:
        StudentError: the student has no such stage.
    """
    if features == "none":
        return ()
    structure = report.structure
    if features == "stage":
        chosen = [(stage.number, stage.blocks[-1]) for stage in structure.stages]
    else:
        chosen = [(number, block) for number in sorted(stages) for block in structure.stage(number).blocks]
    return tuple(
        ConnectionSite(
            name=block.name,
            place="block",
            stage=number,
            channels=block.output.channels,
            overwritten=block.output.overwritten,
        )
        for number, block in chosen
    )


def feature_pairs(student: FeatureQueues, teacher: FeatureQueues) -> tuple[Tensor, ...]:
    """Put the features side by side: student's, teacher's, student's, ... each (N, C, H, W).

    Raises:
        StudentError: the two did not call a module equally often.
    """
    pairs: list[Tensor] = []
    for name, queue in student.items():
        if len(queue) != len(teacher[name]):
            raise StudentError(f"student and teacher do not call '{name}' equally often, so it cannot be compared")
        while len(queue):
            pairs += [queue.take(), teacher[name].take()]
    return tuple(pairs)
