"""Which features are connected: those of whole stages, or of modules that are named."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ecd_deploy.distill.connections import ConnectionSite, Place, connection_sites
from ecd_deploy.errors import StudentError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ecd_deploy.distill.probe import FeatureMap
    from ecd_deploy.distill.structure import StudentStructure
    from ecd_deploy.distill.teacher import TeacherReport


def chosen_sites(
    report: TeacherReport, stages: Iterable[int], patterns: Iterable[str] = ()
) -> tuple[ConnectionSite, ...]:
    """List the sites of the named modules, or of the stages where no pattern is given.

    A pattern is a module's name in which `*` stands for anything without a dot and `**` for anything:
    `layer2.*` are the blocks of `layer2`, `layer2.*.conv1` their first convolutions. Any module that gives
    one tensor (N, C, H, W), of one width whenever it is called, can be connected.

    Raises:
        StudentError: the student has no such stage, or a pattern matches no such module.
    """
    patterns = tuple(patterns)
    if not patterns:
        return connection_sites(report, stages)
    structure = report.structure
    expressions = {pattern: _expression(pattern) for pattern in patterns}
    _require_matches(expressions, structure)
    replaced = {entry.name for entry in report.replaced}
    return tuple(
        ConnectionSite(
            name=feature.name,
            place=_place(feature.name, replaced, structure),
            stage=_stage_of(feature, structure),
            channels=feature.channels,
            overwritten=feature.overwritten,
        )
        for feature in structure.feature_maps
        if any(expression.fullmatch(feature.name) for expression in expressions.values())
    )


def _expression(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", pattern)
    wild = {"*": r"[^.]*", "**": r".*"}
    return re.compile("".join(wild.get(part, re.escape(part)) for part in parts))


def _require_matches(expressions: dict[str, re.Pattern[str]], structure: StudentStructure) -> None:
    features = tuple(feature.name for feature in structure.feature_maps)
    problems = []
    for pattern, expression in expressions.items():
        if any(expression.fullmatch(name) for name in features):
            continue
        others = sorted(name for name in structure.called if expression.fullmatch(name))
        why = f": {', '.join(others)} gives no tensor (N, C, H, W)" if others else did_you_mean(pattern, features)
        problems.append(f"'{pattern}' matches no module that can be connected{why}")
    if problems:
        blocks = ", ".join(block.name for block in structure.blocks)
        raise StudentError(f"method.sites: {'; '.join(problems)}; the student's blocks are {blocks}")


def _place(name: str, replaced: set[str], structure: StudentStructure) -> Place:
    if name in replaced:
        return "convolution"
    return "block" if any(block.name == name for block in structure.blocks) else "module"


def _stage_of(feature: FeatureMap, structure: StudentStructure) -> int:
    for stage in structure.stages:
        if any(f"{feature.name}.".startswith(f"{block.name}.") for block in stage.blocks):
            return stage.number
    return 0
