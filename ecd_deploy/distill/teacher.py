"""Auxiliary teacher generation: paper, section 3.3 and appendix A.1."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ecd_deploy.compat.torch import has_forward_hooks, is_normalisation, own_children
from ecd_deploy.distill.batch_norm import TeacherBatchNorm2d
from ecd_deploy.distill.convolution.attention import AttentionConv2d
from ecd_deploy.distill.convolution.dynamic_conv import DynamicConv2d, TeacherOptions, apart_from, fresh_like
from ecd_deploy.distill.convolution.same_padding import SamePaddedDynamicConv2d, pads_as_tensorflow
from ecd_deploy.distill.student.randomness import separate_generators
from ecd_deploy.distill.student.structure import StudentStructure, find_structure, is_spatial
from ecd_deploy.errors import StudentError

if TYPE_CHECKING:
    from collections.abc import Iterator

Strengthened = DynamicConv2d | AttentionConv2d


@dataclass(frozen=True, kw_only=True)
class ReplacedConvolution:
    """A convolution that became dynamic; `parameters` is the count of its dynamic counterpart."""

    name: str
    block: str
    stage: int
    kernel_size: tuple[int, ...]
    parameters: int


@dataclass(frozen=True, kw_only=True)
class SkippedConvolution:
    """A convolution that stayed as it is, and why."""

    name: str
    kernel_size: tuple[int, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class TeacherReport:
    """How a teacher differs from its student; the counts are of parameters."""

    options: TeacherOptions
    structure: StudentStructure
    replaced: tuple[ReplacedConvolution, ...]
    skipped: tuple[SkippedConvolution, ...]
    student_parameters: int
    teacher_parameters: int


@dataclass(frozen=True)
class GeneratedTeacher:
    """A teacher and the report of its making."""

    module: nn.Module
    report: TeacherReport


def build_teacher(
    student: nn.Module, options: TeacherOptions = TeacherOptions(), *, example: Tensor | None = None
) -> GeneratedTeacher:
    """Make a teacher of the student's structure with stronger convolutions inside its blocks.

    They are dynamic, or followed by attention (`AttentionConv2d`). Convolutions above 1x1 inside blocks
    are replaced; stem, 1x1 and those outside blocks stay ordinary. Teacher and student are trained from
    scratch together, but the paper does not say how the teacher starts. Our choice: each parameter that
    is not constant is drawn anew at the mean and standard deviation it has in the student, constants
    (batch norm, zero biases) keep the value, and running statistics start over. So the two share no
    storage and no random value.

    With `teacher_init` "student" the teacher starts as the student's function instead, its weights and statistics
    included, but for a millionth of each, so that no number of the student's is one of the teacher's.

    Args:
        student: any network of images (N, C, H, W) -> logits (N, classes); it is not changed.
        options: what takes the convolutions' place, and how it is made.
        example: images (N, C, H, W) to find the structure with; by default the size is guessed.

    Raises:
        StudentError: the student cannot be copied or run, or has nothing to replace.
    """
    structure = find_structure(student, example)
    module = copy.deepcopy(student)
    module.requires_grad_(True)
    skipped = tuple(_skipped(student, structure))
    kept = {entry.name for entry in skipped}
    dynamic: dict[str, Strengthened] = {
        name: _counterpart(conv, options)
        for name, conv in module.named_modules()
        if isinstance(conv, nn.Conv2d) and name not in kept
    }
    if not dynamic:
        reasons = "; ".join(f"{entry.name}: {entry.reason}" for entry in skipped)
        raise StudentError(f"no convolution of the student can be replaced ({reasons})")
    if options.teacher_init == "student":
        _start_apart(module)
    else:
        _start_over(module)
    separate_generators(module)
    for name, replacement in dynamic.items():
        old = module.get_submodule(name)
        _replace(module, old, replacement.train(old.training))
    for norm in list(module.modules()):
        if type(norm) is nn.BatchNorm2d:
            _replace(module, norm, TeacherBatchNorm2d.taking_over(norm))
    report = TeacherReport(
        options=options,
        structure=structure,
        replaced=tuple(_replaced(structure, dynamic)),
        skipped=skipped,
        student_parameters=_count(student),
        teacher_parameters=_count(module),
    )
    return GeneratedTeacher(module, report)


def _counterpart(conv: nn.Conv2d, options: TeacherOptions) -> Strengthened:
    if options.teacher != "daconv":
        return AttentionConv2d(conv, options)
    return SamePaddedDynamicConv2d(conv, options) if pads_as_tensorflow(conv) else DynamicConv2d(conv, options)


def _skipped(student: nn.Module, structure: StudentStructure) -> Iterator[SkippedConvolution]:
    inside = {conv.name for block in structure.blocks for conv in block.convolutions}
    for name, module in student.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        if name not in structure.called:
            reason = "it is never called"
        elif not is_spatial(module):
            reason = "its kernel is 1x1"
        elif name not in inside:
            reason = "it is outside the blocks"
        elif type(module) is not nn.Conv2d and not pads_as_tensorflow(module):
            reason = f"its class {type(module).__name__} may compute something else than torch.nn.Conv2d"
        elif has_forward_hooks(module):
            reason = "it has hooks, which may change what it computes"
        else:
            continue
        yield SkippedConvolution(name=name, kernel_size=module.kernel_size, reason=reason)


def _replaced(structure: StudentStructure, dynamic: dict[str, Strengthened]) -> Iterator[ReplacedConvolution]:
    for stage in structure.stages:
        for block in stage.blocks:
            for conv in block.convolutions:
                if conv.name in dynamic:
                    yield ReplacedConvolution(
                        name=conv.name,
                        block=block.name,
                        stage=stage.number,
                        kernel_size=dynamic[conv.name].kernel_size,
                        parameters=_count(dynamic[conv.name]),
                    )


def _start_over(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(fresh_like(parameter))
    for part in module.modules():
        if is_normalisation(part):
            part.reset_running_stats()


def _start_apart(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(apart_from(parameter))
        for part in filter(is_normalisation, module.modules()):
            for buffer in part.buffers(recurse=False):
                if buffer.is_floating_point():
                    buffer.copy_(apart_from(buffer))


def _replace(root: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` wherever `old` is held, which may be in several places."""
    for parent in list(root.modules()):
        for name, child in list(own_children(parent).items()):
            if child is old:
                setattr(parent, name, new)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
