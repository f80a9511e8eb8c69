"""How a student would be treated: what becomes dynamic, what is connected, and what training costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ecd_deploy.distill import (
    ConnectionSite,
    JointModel,
    StudentStructure,
    TeacherReport,
    TrainingModel,
    build_objective,
    find_structure,
)
from ecd_deploy.distill.cost import TrainingMemory, count_macs, measure_training_memory
from ecd_deploy.errors import StudentError
from ecd_deploy.models import build_student
from ecd_deploy.pipelines.inspect.subject import Subject
from ecd_deploy.recipe.method import MethodConfig
from ecd_deploy.recipe.recipe import BUILTIN_RECIPES
from ecd_deploy.recipe.sides import both_sides
from ecd_deploy.training.methods import build_training_model


@dataclass(frozen=True, kw_only=True)
class PartCost:
    """The parameters of a part of what is trained, and its multiply-accumulates for one image."""

    name: str
    parameters: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What `ecd-deploy inspect` shows of a student.

    Attributes:
        subject: what was asked for.
        method: as it was built: with the stages that the student has, and without a teacher trained before.
        student: the network, to look modules up in.
        structure: its blocks and stages.
        report: what of it is replaced; None where no teacher is generated.
        sites: the connections.
        compared: blocks whose features a loss compares.
        parts: student, teacher, connections and what else there is, each with its cost.
        student_macs: multiply-accumulates of an image, by module.
        memory: of a training step.
    """

    subject: Subject
    method: MethodConfig
    student: nn.Module
    structure: StudentStructure
    report: TeacherReport | None
    sites: tuple[ConnectionSite, ...]
    compared: tuple[str, ...]
    parts: tuple[PartCost, ...]
    student_macs: Mapping[str, int]
    memory: TrainingMemory


def inspect_student(subject: Subject) -> Inspection:
    """Build a student with fresh weights and what it would be trained with, and run two training forwards.

    A teacher that was trained before is left out, with its losses: it is in a run directory.

    Raises:
        StudentError: the student cannot be built or treated, or has no such stage or site.
        UsageError: an argument is out of its range.
    """
    torch.manual_seed(0)
    student = _student(subject)
    example = None
    if subject.image_size is not None:
        example = _images(1, (subject.in_channels, *both_sides(subject.image_size)))
    structure = find_structure(student, example)
    images = _images(3, structure.image_shape)
    method = _built(subject, structure)
    model = build_training_model(method, student, example=images)
    macs = count_macs(model, images[:1])
    joint = model if isinstance(model, JointModel) else None
    connections = None if joint is None else joint.connections
    return Inspection(
        subject=subject,
        method=method,
        student=model.student,
        structure=structure,
        report=None if joint is None else joint.report,
        sites=() if connections is None else connections.sites,
        compared=() if joint is None else tuple(site.name for site in joint.compared),
        parts=tuple(_parts(model, macs)),
        student_macs=_below("student", macs),
        memory=measure_training_memory(model, images, build_objective(method)),
    )


def _student(subject: Subject) -> nn.Module:
    try:
        return build_student(subject.student, num_classes=subject.classes, in_channels=subject.in_channels)
    except StudentError as error:
        if subject.recipe is not None or ":" in subject.student:
            raise
        raise StudentError(
            f"{error}; to inspect a recipe, give its path, which ends in .toml, or its name: "
            f"{', '.join(BUILTIN_RECIPES.names())}"
        ) from error


def _built(subject: Subject, structure: StudentStructure) -> MethodConfig:
    method = subject.method
    stages = tuple(stage.number for stage in structure.stages)
    changes: dict[str, object] = {}
    if subject.any_stages and stages:
        changes["stages"] = tuple(number for number in method.stages if number in stages) or stages[:1]
    if method.pretrained is not None:
        changes["pretrained"] = None
        changes["name"] = "plain" if method.name == "distil" else method.name
    return method.model_copy(update=changes)


def _parts(model: TrainingModel, macs: Mapping[str, int]) -> Iterator[PartCost]:
    for name, part in {"student": model.student, **model.auxiliary()}.items():
        parameters = sum(parameter.numel() for parameter in part.parameters())
        yield PartCost(name=name, parameters=parameters, macs=sum(_below(name, macs).values()))


def _below(part: str, macs: Mapping[str, int]) -> Mapping[str, int]:
    """Those of a part's modules, by their names in it."""
    inside = f"{part}."
    return {name.removeprefix(inside): count for name, count in macs.items() if name.startswith(inside)}


def _images(count: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))
