"""Batch norm of the teacher: torch's, with statistics that take a third of the time on a CPU.

torch sums each channel's statistics one value after the other where the layout is the default one. The rows
(sample, channel) are reduced here by the vectorised moments of group norm with one group a channel, and then
combined: the mean of means, and the mean of variances plus the variance of means.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ecd_deploy.compat.torch import is_vmapped


class TeacherBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with the same parameters, buffers and results up to rounding.

    Shapes: (N, C, H, W) -> (N, C, H, W).
    """

    @classmethod
    def taking_over(cls, norm: nn.BatchNorm2d) -> TeacherBatchNorm2d:
        """Return one with the parameters and buffers of `norm` themselves."""
        result = cls(0)
        result.__dict__ = norm.__dict__
        return result

    def forward(self, features: Tensor) -> Tensor:
        """Normalise; the quick way is that of training on a CPU, every other is torch's."""
        if not self._is_quick(features):
            return super().forward(features)
        assert self.num_batches_tracked is not None  # noqa: S101 (for the type checker; tested in _is_quick)
        self.num_batches_tracked.add_(1)
        result: Tensor = _Normalise.apply(
            features, self.weight, self.bias, self.running_mean, self.running_var, self.momentum, self.eps
        )
        return result

    def _is_quick(self, features: Tensor) -> bool:
        return (
            self.training
            and self.affine
            and self.track_running_stats
            and self.momentum is not None
            and features.device.type == "cpu"
            and features.dtype == self.weight.dtype
            and features.is_contiguous()
            and features.numel() > features.shape[1]
            and not is_vmapped(features)
        )


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        mean, variance, scratch = _moments(features, eps)
        count = features.numel() // features.shape[1]
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance * (count / (count - 1)), momentum)
        unused = mean.new_empty(0)
        torch.native_batch_norm(
            features, weight, bias, mean, variance, False, 0.0, eps, out=(scratch, unused, unused.clone())
        )
        ctx.save_for_backward(features, weight, mean, (variance + eps).rsqrt())
        ctx.eps = eps
        return scratch

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, mean, inverse_deviation = ctx.saved_tensors
        gradients = torch.ops.aten.native_batch_norm_backward(
            gradient.contiguous(), features, weight, None, None, mean, inverse_deviation, True, ctx.eps, [True] * 3
        )
        return (*gradients, None, None, None, None)


def _moments(features: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance of each channel, (C,) both, and a tensor like the features with any values."""
    samples, channels, height, width = features.shape
    scratch, means, inverse_deviations = torch.native_group_norm(
        features, None, None, samples, channels, height * width, channels, eps
    )
    means = means.double()
    variances = inverse_deviations.double() ** -2 - eps
    mean = means.mean(dim=0)
    variance = variances.mean(dim=0) + (means - mean).square().mean(dim=0)
    return mean.to(features.dtype), variance.clamp(min=0).to(features.dtype), scratch
