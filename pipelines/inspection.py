"""How a student would be treated: what becomes dynamic, what is connected, and what training costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ecd_deploy.distill import ConnectionSite, ECDModel, TeacherReport, find_structure
from ecd_deploy.distill.cost import TrainingMemory, count_macs, measure_training_memory
from ecd_deploy.models import build_student

_PAPERS_STAGES = (2, 3)


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What `ecd-deploy inspect` shows of a student.

    Attributes:
        name: of the student.
        student: the network, to look modules up in.
        report: what of it is replaced, and the structure that was found.
        sites: the connections.
        connection_parameters: their number of parameters.
        student_macs: multiply-accumulates of an image, by module.
        teacher_macs: the same of the teacher.
        memory: of a training step.
    """

    name: str
    student: nn.Module
    report: TeacherReport
    sites: tuple[ConnectionSite, ...]
    connection_parameters: int
    student_macs: Mapping[str, int]
    teacher_macs: Mapping[str, int]
    memory: TrainingMemory


def inspect_student(
    name: str,
    *,
    classes: int,
    in_channels: int = 3,
    image_size: int | None = None,
    kernels: int = 16,
    stages: tuple[int, ...] = (),
) -> Inspection:
    """Build a student with fresh weights, its teacher and connections, and run two training forwards.

    Args:
        name: as in a recipe.
        classes: of the logits.
        in_channels: of the images.
        image_size: side in pixels; by default the smallest of 32, 64 and 224 that the student takes.
        kernels: n of the dynamic convolutions.
        stages: that are connected; by default those of the paper, 2 and 3, that the student has.

    Raises:
        StudentError: the student cannot be built or treated, or has no such stage.
    """
    torch.manual_seed(0)
    student = build_student(name, num_classes=classes, in_channels=in_channels)
    example = None if image_size is None else _images(1, (in_channels, image_size, image_size))
    structure = find_structure(student, example)
    images = _images(3, structure.image_shape)
    found = tuple(stage.number for stage in structure.stages)
    chosen = stages or tuple(number for number in found if number in _PAPERS_STAGES) or found[:1]
    model = ECDModel(student, kernels=kernels, stages=chosen, example=images)
    return Inspection(
        name=name,
        student=model.student,
        report=model.report,
        sites=model.connections.sites,
        connection_parameters=sum(parameter.numel() for parameter in model.connections.parameters()),
        student_macs=count_macs(model.student, images[:1]),
        teacher_macs=count_macs(model.teacher, images[:1]),
        memory=measure_training_memory(model, images),
    )


def _images(count: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))
