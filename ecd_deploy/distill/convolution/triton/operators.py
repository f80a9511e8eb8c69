"""The launches of Triton as operators of torch: a graph holds them, and tensors without data pass through them.

Shape letters as in `dynamic_conv`; `geometry` are the numbers of a `Geometry`. What a kernel is given lies contiguous,
in one dtype if nothing else is said.
Triton comes with torch's builds for CUDA on Linux; it is imported at the first launch.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from ecd_deploy.distill.convolution.sample_convolution import Geometry
from ecd_deploy.distill.convolution.triton.support import arithmetic, block_for, count_blocks

_OUT, _PLACES, _INNER = 64, 64, 32  # of a block, at most


@torch.library.custom_op("ecd_deploy::convolve_samples", mutates_args=())
def convolve_samples(
    features: Tensor,
    kernels: Tensor,
    bias: Tensor | None,
    added: Sequence[Tensor],
    later: Sequence[Tensor],
    geometry: Sequence[int],
) -> list[Tensor]:
    """Convolve each sample with its kernel, and add its bias.

    A connection is given by the student's feature and its own weight; nothing is given for one that is not there.

    Args:
        features: (N, C, H, W).
        kernels: (N, O, C/G, h, w).
        bias: (N, O).
        added: a connection that is added too, (N, O, H', W') and (O, O).
        later: one that is not.
        geometry: of the convolution.

    Returns:
        (N, O, H', W'), and what the later connection gives, likewise.
    """
    from ecd_deploy.distill.convolution.triton import products

    results: list[Tensor] = _empty_outputs(features, kernels, bias, added, later, geometry)
    samples, groups = len(features), geometry[-1]
    outputs = kernels.shape[1] // groups
    block = block_for(outputs, _OUT)
    grid = (samples, count_blocks(results[0][0, 0].numel(), _PLACES), groups * count_blocks(outputs, block))
    products.convolve[grid](
        *(features, kernels, features if bias is None else bias),
        *(*_two(added, features), *_two(later, features)),
        *(results[0], results[-1]),
        *(kernels.shape[2], outputs),
        *_sides(features.shape[2:], results[0].shape[2:], kernels.shape[3:], geometry),
        *(bias is not None, bool(added), bool(later)),
        **arithmetic(features),
        BLOCK_OUT=block,
        BLOCK_PLACES=_PLACES,
        BLOCK_INNER=_INNER,
    )
    return results


@convolve_samples.register_fake
def _empty_outputs(features: Tensor, kernels: Tensor, *others: Any) -> list[Tensor]:
    *_, later, geometry = others
    size = Geometry.of(geometry).output_size(features.shape[2:], kernels.shape[3:])
    return [features.new_empty(*kernels.shape[:2], *size) for _ in range(2 if later else 1)]


@torch.library.custom_op("ecd_deploy::differentiate_features", mutates_args=())
def differentiate_features(
    gradient: Tensor,
    kernels: Tensor,
    pooled_gradient: Tensor,
    received: Sequence[Tensor],
    connections: Sequence[Tensor],
    size: Sequence[int],
    geometry: Sequence[int],
) -> list[Tensor]:
    """Gradient of features whose means over the places have a gradient too, of any dtype.

    Shapes: (N, O, H', W'), (N, O, C/G, h, w), (N, C), up to two (N, O, H', W') and (O, O), and `size` (H, W).

    Returns:
        (N, C, H, W), and the gradient of the student's feature in each connection whose output received one.
    """
    from ecd_deploy.distill.convolution.triton import gradients

    results: list[Tensor] = _empty_features(gradient, kernels, pooled_gradient, received, connections, size, geometry)
    outputs, channels, groups = kernels.shape[1], kernels.shape[2], geometry[-1]
    block = block_for(channels, _OUT)
    places = (size[0] * size[1], *[gradient[0, 0].numel()] * len(received))
    rows = max(groups * count_blocks(channels, block), count_blocks(outputs, block) if received else 0)
    grid = (len(gradient), sum(count_blocks(each, _PLACES) for each in places), rows)
    gradients.differentiate_features[grid](
        *(gradient, kernels, pooled_gradient),
        *(*_two(received, gradient), *_two(connections, gradient)),
        *(results[0], *_two(results[1:], gradient)),
        *(channels, outputs // groups),
        *_sides(size, gradient.shape[2:], kernels.shape[3:], geometry),
        **arithmetic(gradient),
        BLOCK_CHANNELS=block,
        BLOCK_PLACES=_PLACES,
        BLOCK_INNER=_INNER,
    )
    return results


@differentiate_features.register_fake
def _empty_features(gradient: Tensor, _kernels: Tensor, pooled_gradient: Tensor, *others: Any) -> list[Tensor]:
    received, _, size, _ = others
    return [gradient.new_empty(*pooled_gradient.shape, *size), *(torch.empty_like(one) for one in received)]


@torch.library.custom_op("ecd_deploy::differentiate_weights", mutates_args=())
def differentiate_weights(
    gradient: Tensor,
    features: Tensor,
    received: Sequence[Tensor],
    students: Sequence[Tensor],
    size: Sequence[int],
    geometry: Sequence[int],
) -> Tensor:
    """Gradient of each sample's kernel, and beside it what the sample adds to the gradient of each connection.

    Shapes: (N, O, H', W'), (N, C, H, W), up to two (N, O, H', W') twice, `size` (h, w) -> (N, O C/G h w + O O + O O).
    """
    from ecd_deploy.distill.convolution.triton import gradients

    result: Tensor = _empty_weights(gradient, features, received, students, size, geometry)
    samples, outputs, groups = len(gradient), gradient.shape[1], geometry[-1]
    channels = features.shape[1] // groups
    block, inner = block_for(outputs // groups, _OUT), block_for(channels * prod(size), _OUT)
    columns = (channels * prod(size), *[outputs] * len(received))
    grid = (
        samples,
        sum(count_blocks(each, inner) for each in columns),
        groups * count_blocks(outputs // groups, block),
    )
    gradients.differentiate_weights[grid](
        *(gradient, features),
        *(*_two(received, gradient), *_two(students, gradient)),
        *(result, result.shape[1]),
        *(channels, outputs // groups),
        *_sides(features.shape[2:], gradient.shape[2:], size, geometry),
        **arithmetic(gradient),
        BLOCK_OUT=block,
        BLOCK_PLACES=_INNER,
        BLOCK_INNER=inner,
    )
    return result


@differentiate_weights.register_fake
def _empty_weights(gradient: Tensor, features: Tensor, received: Sequence[Tensor], *others: Any) -> Tensor:
    _, size, geometry = others
    outputs = gradient.shape[1]
    inner = features.shape[1] // geometry[-1] * prod(size)
    return gradient.new_empty(len(gradient), outputs * (inner + outputs * len(received)))


def _two(tensors: Sequence[Tensor], otherwise: Tensor) -> tuple[Tensor, Tensor]:
    """Both; a kernel does not look at one that is not there."""
    first, second, *_ = (*tensors, otherwise, otherwise)
    return first, second


def _sides(size: Sequence[int], out_size: Sequence[int], kernel: Sequence[int], geometry: Sequence[int]) -> list[Any]:
    """How a kernel takes them: heights and widths, then (vertical, horizontal) of each option, and the groups."""
    options = Geometry.of(geometry)
    return [*size, *out_size, tuple(kernel), options.stride, options.padding, options.dilation, options.groups]
