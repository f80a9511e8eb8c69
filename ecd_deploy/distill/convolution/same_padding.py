"""Dynamic counterpart of convolutions that pad as TensorFlow does.

The padding of `Conv2dSame` (timm, <https://github.com/huggingface/pytorch-image-models>) depends on the image:
as much as makes the output ceil(size / stride) large, the odd pixel at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F  # noqa: N812 (torch's own name for it)

from ecd_deploy.distill.convolution.dynamic_conv import DynamicConv2d

if TYPE_CHECKING:
    from torch import Tensor, nn

_SAME_PADDED = ("timm.layers.conv2d_same.Conv2dSame",)


class SamePaddedDynamicConv2d(DynamicConv2d):
    """A `DynamicConv2d` that pads with zeros so that (H, W) becomes (ceil(H / stride), ceil(W / stride))."""

    _pads_first = True

    def _padded(self, features: Tensor) -> Tensor:
        height, width = (
            _missing(size, kernel, stride, dilation)
            for size, kernel, stride, dilation in zip(
                features.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True
            )
        )
        return F.pad(features, [width // 2, width - width // 2, height // 2, height - height // 2])


def pads_as_tensorflow(module: nn.Module) -> bool:
    """Whether the module is a convolution known to pad like this; by name, so that timm is not imported for it."""
    return f"{type(module).__module__}.{type(module).__qualname__}" in _SAME_PADDED


def _missing(size: int, kernel: int, stride: int, dilation: int) -> int:
    steps = -(-size // stride) - 1
    return max(0, steps * stride + (kernel - 1) * dilation + 1 - size)
