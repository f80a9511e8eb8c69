"""`phi_T + W phi_S` as one accumulating matrix product: the Conv1x1 connection without its intermediate.

The student's feature may be channels_last and the teacher's not: either is read as it lies, as a matrix
(C, H*W) or its transpose, and the gradients come back in the layout of what they belong to.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def add_conv1x1(teacher: Tensor, student: Tensor, weight: Tensor, *, in_place: bool) -> Tensor:
    """Return `teacher + conv1x1(student, weight)`; it can be differentiated once.

    Args:
        teacher: (N, O, H, W).
        student: (N, C, H, W).
        weight: (O, C, 1, 1).
        in_place: write into `teacher`, which must be contiguous, and which nothing else may need then.
    """
    result: Tensor = _AddConv1x1.apply(teacher, student, weight, in_place)
    return result


class _AddConv1x1(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, teacher: Tensor, student: Tensor, weight: Tensor, in_place: bool) -> Tensor:
        ctx.save_for_backward(student, weight)
        if in_place:
            ctx.mark_dirty(teacher)
        else:
            teacher = teacher.clone(memory_format=torch.contiguous_format)
        matrix = weight.flatten(1).expand(len(student), -1, -1)
        teacher.view(*teacher.shape[:2], -1).baddbmm_(matrix, student.flatten(2))
        return teacher

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        student, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1], ctx.needs_input_grad[2]
        return gradient, *differentiate_conv1x1(gradient, student, weight, wanted), None


def differentiate_conv1x1(
    gradient: Tensor, student: Tensor, weight: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of a student's feature, in its layout, and of the weight, where they are wanted.

    Args:
        gradient: of what the feature was added to, (N, O, H, W).
        student: the feature, (N, C, H, W).
        weight: (O, C, 1, 1).
        wanted: that of the feature, that of the weight.
    """
    if _is_for_cudnn(student):
        # the products of all samples are added up as they are made
        of_feature, of_weight, _ = torch.ops.aten.convolution_backward(
            gradient, student, weight, None, (1, 1), (0, 0), (1, 1), False, (0, 0), 1, (*wanted, False)
        )
        return of_feature if wanted[0] else None, of_weight if wanted[1] else None
    columns = gradient.flatten(2)
    student_gradient = _back_through(columns, student, weight.flatten(1)) if wanted[0] else None
    if not wanted[1]:
        return student_gradient, None
    products = torch.bmm(columns, student.flatten(2).transpose(1, 2))
    return student_gradient, products.sum(dim=0).view_as(weight)


def _is_for_cudnn(student: Tensor) -> bool:
    return student.device.type == "cuda" and student.is_contiguous()


def _back_through(columns: Tensor, student: Tensor, matrix: Tensor) -> Tensor:
    """Gradient of the student's feature, in its layout: (N, O, H*W) through (O, C) -> (N, C, H, W)."""
    samples, channels, height, width = student.shape
    if student.is_contiguous():
        transposed = matrix.t().expand(samples, -1, -1)
        return torch.bmm(transposed, columns).view(student.shape)
    # Written into a tensor that is no view: autograd adds the student's own gradient to such a one in place.
    result = torch.empty_like(student, memory_format=torch.channels_last)
    rows = result.permute(0, 2, 3, 1).view(samples, height * width, channels)
    torch.bmm(columns.transpose(1, 2), matrix.expand(samples, -1, -1), out=rows)
    return result
