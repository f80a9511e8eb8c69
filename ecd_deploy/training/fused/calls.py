"""What an operation of a program is: a batch norm or its gradient, a sum, a mean over places."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from ecd_deploy.training.fused.program import Call, View

_aten = torch.ops.aten
NORMS: tuple[object, ...] = (_aten.native_batch_norm.default, _aten.cudnn_batch_norm.default)
RELUS: tuple[object, ...] = (_aten.relu.default, _aten.relu_.default)
_SUMS: tuple[object, ...] = (_aten.add.Tensor, _aten.add_.Tensor)


@dataclass(frozen=True)
class Norm:
    """A batch norm in training: what it is given."""

    features: View
    weight: View
    bias: View
    running_mean: View
    running_variance: View
    momentum: float
    eps: float


@dataclass(frozen=True)
class NormGradient:
    """The gradient of a batch norm in training: what it is given."""

    gradient: View
    features: View
    weight: View
    mean: View
    inverse_deviation: View


def read_norm(call: Call) -> Norm | None:
    """What a batch norm is given, None if it is not one in training with all that a launch needs."""
    if call.operator not in NORMS:
        return None
    features, weight, bias, running_mean, running_variance, trains, momentum, eps = call.arguments
    views = (features, weight, bias, running_mean, running_variance)
    if not trains or not all(isinstance(view, View) and view.is_contiguous for view in views):
        return None
    return Norm(*views, momentum, eps) if features.dtype == call.results[0].dtype else None


def read_norm_gradient(call: Call) -> NormGradient | None:
    """What the gradient of a batch norm is given, None if it is not one in training with all that a launch needs."""
    arguments = call.arguments
    if call.operator is _aten.native_batch_norm_backward.default:
        gradient, features, weight, _, _, mean, inverse_deviation, trains, _, wanted = arguments
        if not trains or not all(wanted):
            return None
    elif call.operator is _aten.cudnn_batch_norm_backward.default:
        features, gradient, weight, _, _, mean, inverse_deviation, *_ = arguments
    else:
        return None
    views = (gradient, features, weight, mean, inverse_deviation)
    if not all(isinstance(view, View) and view.is_contiguous for view in views):
        return None
    return NormGradient(*views) if gradient.dtype == features.dtype else None


def parts_of(call: Call) -> tuple[View, View] | None:
    """Both parts of a plain sum of two tensors that lie alike."""
    if call.operator not in _SUMS or call.options.get("alpha", 1) != 1:
        return None
    first, second = call.arguments
    return (first, second) if isinstance(second, View) and lies_like(first, second) else None


def added_to(call: Call, view: View) -> View | None:
    """What a sum adds to a tensor, if it does and to this one only."""
    operands = parts_of(call)
    if operands is None or view not in operands or operands[0] == operands[1]:
        return None
    return operands[1] if operands[0] == view else operands[0]


def takes_means(call: Call, features: View) -> bool:
    """Whether these are means (N, C) of features (N, C, H, W)."""
    if call.operator is not _aten.mean.dim or call.arguments[0] != features or len(features.size) != 4:
        return False
    dimensions = {dimension % 4 for dimension in call.arguments[1] or ()}
    return dimensions == {2, 3} and features.is_contiguous and call.results[0].is_contiguous


def as_matrix(view: View) -> View:
    """The same numbers as (N, C)."""
    return replace(view, size=view.size[:2], stride=(view.size[1], 1))


def lies_like(one: Any, other: View) -> bool:
    """Whether it is a tensor as another one, but for its memory."""
    return isinstance(one, View) and one == replace(other, memory=one.memory)
