"""Global average pooling whose gradient is never written out at full size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecd_deploy.compat.torch import is_vmapped


def pooled(features: Tensor) -> Tensor:
    """Average over the places, (N, C, H, W) -> (N, C); it can be differentiated once."""
    if is_vmapped(features):
        return features.mean(dim=(2, 3))
    result: Tensor = _Pool.apply(features)
    return result


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.shape = features.shape
        return features.mean(dim=(2, 3))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        _, _, height, width = ctx.shape
        # Expanded without a copy: autograd adds it to the convolution's gradient in one pass.
        expanded: Tensor = (gradient / (height * width))[:, :, None, None].expand(ctx.shape)
        return expanded
