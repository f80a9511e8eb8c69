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
    added: Sequence[Tensor],
    later: Sequence[Tensor],
    geometry: Sequence[int],
) -> list[Tensor]:
    """Each sample is a set of groups of one image."""
    options = Geometry.of(geometry)
    output = F.conv2d(
        _one_image(features),
        kernels.flatten(0, 1),
        None if bias is None else bias.flatten(),
        options.stride,
        options.padding,
        options.dilation,
        len(features) * options.groups,
    )
    output = output.view(*kernels.shape[:2], *output.shape[2:])
    if added:
        output = output + _connected(*added)
    return [output, _connected(*later)] if later else [output]


def differentiate_features(
    gradient: Tensor,
    kernels: Tensor,
    pooled_gradient: Tensor,
    received: Sequence[Tensor],
    connections: Sequence[Tensor],
    size: Sequence[int],
    geometry: Sequence[int],
) -> list[Tensor]:
    """The transposed convolutions, and the mean's gradient spread over the places."""
    features = gradient.new_empty(*pooled_gradient.shape, *size)
    to_features, _ = _gradients(gradient, features, kernels, geometry)
    spread = (pooled_gradient / (size[0] * size[1]))[:, :, None, None]
    pairs = zip(received, connections, strict=True)
    to_students = [F.conv_transpose2d(one, connection[:, :, None, None]) for one, connection in pairs]
    return [(to_features + spread).to(gradient.dtype), *to_students]


def differentiate_weights(
    gradient: Tensor,
    features: Tensor,
    received: Sequence[Tensor],
    students: Sequence[Tensor],
    size: Sequence[int],
    geometry: Sequence[int],
) -> Tensor:
    """The convolutions' gradients of their weights."""
    kernels = gradient.new_empty(*gradient.shape[:2], features.shape[1] // geometry[-1], *size)
    to_kernels = _gradients(gradient, features, kernels, geometry)[1]
    pairs = zip(received, students, strict=True)
    to_connections = [torch.einsum("nohw,nshw->nos", one, student) for one, student in pairs]
    return torch.cat([part.flatten(1) for part in (to_kernels, *to_connections)], dim=1)


def mix(
    pooled: Tensor, router: Sequence[Tensor], gain: float, weight: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Two layers, softmax, and a matrix product."""
    reduce_weight, reduce_bias, expand_weight, expand_bias, temperature = router
    hidden = F.linear(pooled, reduce_weight, reduce_bias).relu()
    scores = F.linear(hidden, expand_weight, expand_bias)
    mixing = gain * torch.softmax(scores / temperature, dim=1)
    return (mixing @ weight.flatten(1)).view(-1, *weight.shape[1:]).to(dtype), mixing, hidden


def differentiate_mixing(gradient: Tensor, mixing: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Matrix products; that of the mixing weights is in one part."""
    of_mixtures, others = gradient.to(mixing.dtype).tensor_split([weight[0].numel()], dim=1)
    to_mixing = of_mixtures @ weight.flatten(1).t()
    return (mixing.t() @ of_mixtures).view_as(weight), others.sum(dim=0), to_mixing[None]


def differentiate_route(
    parts: Tensor,
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
    received = parts.sum(dim=0) * gain
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


def _connected(student: Tensor, connection: Tensor) -> Tensor:
    """(N, O, H, W) by (O, O)."""
    return F.conv2d(student, connection[:, :, None, None])


def _one_image(features: Tensor) -> Tensor:
    """(N, C, H, W) -> (1, N C, H, W)."""
    return features.flatten(0, 1).unsqueeze(0)
