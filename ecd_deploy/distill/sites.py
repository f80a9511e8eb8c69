"""Which features are connected, those of whole stages or of modules that are named, and which a loss compares."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ecd_deploy.errors import StudentError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ecd_deploy.distill.student.probe import FeatureMap
    from ecd_deploy.distill.student.structure import StudentStructure
    from ecd_deploy.distill.teacher import TeacherReport
    from ecd_deploy.recipe.method import Features

Place = Literal["convolution", "block", "module"]


@dataclass(frozen=True, kw_only=True)
class ConnectionSite:
    """A place where a feature of the student is added to the teacher's.

    Attributes:
        name: of the module, in student and teacher, after which it stands.
        place: whether that is a replaced convolution, a block, or another module that was named.
        stage: number of the stage; 0 where the module stands in none.
        channels: of the feature (N, channels, H, W).
        overwritten: whether the student changes the feature in place afterwards, so that a copy is taken.
    """

    name: str
    place: Place
    stage: int
    channels: int
    overwritten: bool


def connection_sites(report: TeacherReport, stages: Iterable[int]) -> tuple[ConnectionSite, ...]:
    """List the sites in the given stages: each replaced convolution and each block (appendix A.1).

    Raises:
        StudentError: the student has no such stage.
    """
    replaced = {entry.name for entry in report.replaced}
    sites: dict[str, ConnectionSite] = {}
    for number in sorted(stages):
        for block in report.structure.stage(number).blocks:
            for conv in block.convolutions:
                if conv.name in replaced:
                    sites[conv.name] = _site(conv, "convolution", number)
            # Where a convolution is a block of its own, both are one place.
            sites.setdefault(block.name, _site(block.output, "block", number))
    return tuple(sites.values())


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
    expressions = {pattern: name_pattern(pattern) for pattern in patterns}
    _require_matches(expressions, structure)
    replaced = {entry.name for entry in report.replaced}
    return tuple(
        _site(feature, _place(feature.name, replaced, structure), _stage_of(feature, structure))
        for feature in structure.feature_maps
        if any(expression.fullmatch(feature.name) for expression in expressions.values())
    )


def compared_sites(report: TeacherReport, features: Features, stages: Iterable[int]) -> tuple[ConnectionSite, ...]:
    """List the blocks after which features are compared: each stage's last, or each one of the given stages.

    Paper, section 4.3 and table 5.

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
    return tuple(_site(block.output, "block", number) for number, block in chosen)


def _site(feature: FeatureMap, place: Place, stage: int) -> ConnectionSite:
    return ConnectionSite(
        name=feature.name, place=place, stage=stage, channels=feature.channels, overwritten=feature.overwritten
    )


def name_pattern(pattern: str) -> re.Pattern[str]:
    """What matches a module's name: `*` stands for anything without a dot, `**` for anything."""
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
