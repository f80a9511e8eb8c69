"""What each launch of Triton computes, by torch's own operations and of the same arguments: what it is checked by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor

from ecd_deploy.distill.convolution.sample_convolution import Geometry


def convolve_samples(
    features: Tensor,
    kernels: Tensor,
    bias: Tensor | None,
    student: Tensor | None,
    connection: Tensor | None,
    geometry: Sequence[int],
) -> Tensor:
    """Each sample is a set of groups of one image."""
    flat_bias = None if bias is None else bias.flatten()
    options = Geometry.of(geometry)
    output = F.conv2d(
        _one_image(features),
        kernels.flatten(0, 1),
        flat_bias,
        options.stride,
        options.padding,
        options.dilation,
        len(features) * options.groups,
    )
    output = output.view(*kernels.shape[:2], *output.shape[2:])
    if student is None or connection is None:
        return output
    return output + F.conv2d(student, connection[:, :, None, None])


def differentiate_features(
    gradient: Tensor,
    kernels: Tensor,
    pooled_gradient: Tensor,
    size: Sequence[int],
    geometry: Sequence[int],
) -> Tensor:
    """The transposed convolution, and the mean's gradient spread over the places."""
    features = gradient.new_empty(*pooled_gradient.shape, *size)
    to_features, _ = _gradients(gradient, features, kernels, geometry)
    spread = (pooled_gradient / (size[0] * size[1]))[:, :, None, None]
    return (to_features + spread).to(gradient.dtype)


def differentiate_kernels(
    gradient: Tensor,
    features: Tensor,
    size: Sequence[int],
    geometry: Sequence[int],
) -> Tensor:
    """The convolution's gradient of its weight."""
    kernels = gradient.new_empty(*gradient.shape[:2], features.shape[1] // geometry[-1], *size)
    return _gradients(gradient, features, kernels, geometry)[1]


def route(
    features: Tensor,
    reduce_weight: Tensor,
    reduce_bias: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    temperature: Tensor,
    gain: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Means, two layers, softmax."""
    pooled = features.to(reduce_weight.dtype).mean(dim=(2, 3))
    hidden = F.linear(pooled, reduce_weight, reduce_bias).relu()
    scores = F.linear(hidden, expand_weight, expand_bias)
    return gain * torch.softmax(scores / temperature, dim=1), pooled, hidden


def differentiate_route(
    gradient: Tensor,
    mixing: Tensor,
    pooled: Tensor,
    hidden: Tensor,
    reduce_weight: Tensor,
    expand_weight: Tensor,
    temperature: Tensor,
    gain: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Back through softmax, two layers and ReLU."""
    shares = mixing / gain
    received = gradient * gain
    scores = shares * (received - (shares * received).sum(dim=1, keepdim=True)) / temperature
    units = (scores @ expand_weight) * (hidden > 0)
    return units @ reduce_weight, units.t() @ pooled, units.sum(dim=0), scores.t() @ hidden, scores.sum(dim=0)


def _gradients(gradient: Tensor, features: Tensor, kernels: Tensor, geometry: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Those of features and kernels, each in its shape."""
    options = Geometry.of(geometry)
    to_features, to_kernels, _ = torch.ops.aten.convolution_backward(
        _one_image(gradient),
        _one_image(features),
        kernels.flatten(0, 1),
        None,
        options.stride,
        options.padding,
        options.dilation,
        False,
        (0, 0),
        len(gradient) * options.groups,
        (True, True, False),
    )
    return to_features.view_as(features), to_kernels.view_as(kernels)


def _one_image(features: Tensor) -> Tensor:
    """(N, C, H, W) -> (1, N C, H, W)."""
    return features.flatten(0, 1).unsqueeze(0)
