"""The launches of Triton as operators of torch: a graph holds them, and tensors without data pass through them.

Shape letters as in `dynamic_conv`; `geometry` are the numbers of a `Geometry`. What a kernel is given lies contiguous,
in one dtype if nothing else is said.
Triton comes with torch's builds for CUDA on Linux; it is imported at the first launch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ecd_deploy.distill.convolution.sample_convolution import Geometry
from ecd_deploy.distill.convolution.triton.support import arithmetic, sum_dtype

_FEWEST = 16  # rows and columns that a product of tensor cores takes
_OUT, _PLACES, _INNER = 64, 64, 32  # of a block, at most


@torch.library.custom_op("ecd_deploy::convolve_samples", mutates_args=())
def convolve_samples(
    features: Tensor,
    kernels: Tensor,
    bias: Tensor | None,
    student: Tensor | None,
    connection: Tensor | None,
    geometry: Sequence[int],
) -> Tensor:
    """Convolve each sample with its kernel, add its bias and, if given, `connection @ student`.

    Shapes: (N, C, H, W), (N, O, C/G, h, w), (N, O), (N, S, H', W'), (O, S) -> (N, O, H', W').
    """
    from ecd_deploy.distill.convolution.triton import products

    output: Tensor = _empty_output(features, kernels, None, None, None, geometry)
    samples, groups = len(features), geometry[-1]
    outputs = kernels.shape[1] // groups
    block = _block(outputs, _OUT)
    grid = (samples, _count(output[0, 0].numel(), _PLACES), groups * _count(outputs, block))
    products.convolve[grid](
        features,
        kernels,
        features if bias is None else bias,
        features if student is None else student,
        features if connection is None else connection,
        output,
        *(kernels.shape[2], outputs, 1 if student is None else student.shape[1]),
        *(*features.shape[2:], *output.shape[2:]),
        *(*kernels.shape[3:], *geometry),
        *(bias is not None, student is not None),
        **arithmetic(features),
        BLOCK_OUT=block,
        BLOCK_PLACES=_PLACES,
        BLOCK_INNER=_INNER,
    )
    return output


@convolve_samples.register_fake
def _empty_output(
    features: Tensor,
    kernels: Tensor,
    bias: Tensor | None,
    student: Tensor | None,
    connection: Tensor | None,
    geometry: Sequence[int],
) -> Tensor:
    del bias, student, connection
    size = Geometry.of(geometry).output_size(features.shape[2:], kernels.shape[3:])
    return features.new_empty(*kernels.shape[:2], *size)


@torch.library.custom_op("ecd_deploy::differentiate_features", mutates_args=())
def differentiate_features(
    gradient: Tensor,
    kernels: Tensor,
    pooled_gradient: Tensor,
    size: Sequence[int],
    geometry: Sequence[int],
) -> Tensor:
    """Gradient of features whose means over the places have a gradient too, of any dtype.

    Shapes: (N, O, H', W'), (N, O, C/G, h, w), (N, C), and `size` (H, W) -> (N, C, H, W).
    """
    from ecd_deploy.distill.convolution.triton import products

    result: Tensor = _empty_features(gradient, kernels, pooled_gradient, size, geometry)
    samples, channels, groups = len(gradient), kernels.shape[2], geometry[-1]
    block = _block(channels, _OUT)
    grid = (samples, _count(size[0] * size[1], _PLACES), groups * _count(channels, block))
    products.differentiate_features[grid](
        *(gradient, kernels, pooled_gradient, result),
        *(channels, kernels.shape[1] // groups),
        *(*size, *gradient.shape[2:]),
        *(*kernels.shape[3:], *geometry),
        **arithmetic(gradient),
        BLOCK_CHANNELS=block,
        BLOCK_PLACES=_PLACES,
        BLOCK_INNER=_INNER,
    )
    return result


@differentiate_features.register_fake
def _empty_features(
    gradient: Tensor,
    kernels: Tensor,
    pooled_gradient: Tensor,
    size: Sequence[int],
    geometry: Sequence[int],
) -> Tensor:
    del kernels, geometry
    return gradient.new_empty(*pooled_gradient.shape, *size)


@torch.library.custom_op("ecd_deploy::differentiate_kernels", mutates_args=())
def differentiate_kernels(
    gradient: Tensor,
    features: Tensor,
    size: Sequence[int],
    geometry: Sequence[int],
) -> Tensor:
    """Gradient of each sample's kernel.

    Shapes: (N, O, H', W'), (N, C, H, W), and `size` (h, w) -> (N, O, C/G, h, w).
    """
    from ecd_deploy.distill.convolution.triton import products

    result: Tensor = _empty_kernels(gradient, features, size, geometry)
    samples, groups = len(gradient), geometry[-1]
    outputs, channels = gradient.shape[1] // groups, features.shape[1] // groups
    block, inner = _block(outputs, _OUT), _block(channels * size[0] * size[1], _OUT)
    grid = (samples, _count(channels * size[0] * size[1], inner), groups * _count(outputs, block))
    products.differentiate_kernels[grid](
        *(gradient, features, result),
        *(channels, outputs),
        *(*features.shape[2:], *gradient.shape[2:]),
        *(*size, *geometry),
        **arithmetic(gradient),
        BLOCK_OUT=block,
        BLOCK_PLACES=_INNER,
        BLOCK_INNER=inner,
    )
    return result


@differentiate_kernels.register_fake
def _empty_kernels(
    gradient: Tensor,
    features: Tensor,
    size: Sequence[int],
    geometry: Sequence[int],
) -> Tensor:
    return gradient.new_empty(*gradient.shape[:2], features.shape[1] // geometry[-1], *size)


@torch.library.custom_op("ecd_deploy::route", mutates_args=())
def route(
    features: Tensor,
    reduce_weight: Tensor,
    reduce_bias: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    temperature: Tensor,
    gain: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mixing weights from means over the places, two layers and a softmax; `gain` multiplies them.

    The features may be of another dtype than all others.
    Shapes: (N, C, H, W), (K, C), (K,), (n, K), (n,), () -> (N, n), (N, C) the means, (N, K) the hidden units.
    """
    from ecd_deploy.distill.convolution.triton import router

    results: tuple[Tensor, Tensor, Tensor] = _empty_route(
        features, reduce_weight, reduce_bias, expand_weight, expand_bias, temperature, gain
    )
    mixing, pooled, hidden = results
    samples, channels, *size = features.shape
    router.route[samples,](
        *(features, reduce_weight, reduce_bias, expand_weight, expand_bias, temperature),
        *(pooled, hidden, mixing),
        *(channels, size[0] * size[1], hidden.shape[1], mixing.shape[1]),
        GAIN=gain,
        SUM=sum_dtype(features),
        BLOCK_CHANNELS=_FEWEST,
        BLOCK_PLACES=2 * _PLACES,
        BLOCK_HIDDEN=_block(hidden.shape[1]),
        BLOCK_KERNELS=_block(mixing.shape[1]),
    )
    return results


@route.register_fake
def _empty_route(
    features: Tensor,
    reduce_weight: Tensor,
    reduce_bias: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    temperature: Tensor,
    gain: float,
) -> tuple[Tensor, Tensor, Tensor]:
    del reduce_bias, expand_weight, temperature, gain
    shapes = (len(expand_bias), *reversed(reduce_weight.shape))
    mixing, pooled, hidden = (reduce_weight.new_empty(len(features), count) for count in shapes)
    return mixing, pooled, hidden


@torch.library.custom_op("ecd_deploy::differentiate_route", mutates_args=())
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
    """Gradients of the means, and of weight and bias of both layers.

    Shapes: (N, n) twice, (N, C), (N, K), (K, C), (n, K), () -> (N, C), (K, C), (K,), (n, K), (n,).
    """
    from ecd_deploy.distill.convolution.triton import router

    results: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = _empty_route_gradients(
        gradient, mixing, pooled, hidden, reduce_weight, expand_weight, temperature, gain
    )
    (samples, channels), hidden_units, kernels = pooled.shape, hidden.shape[1], mixing.shape[1]
    router.differentiate_route[_count(channels, _FEWEST),](
        *(gradient, mixing, pooled, hidden, reduce_weight, expand_weight, temperature),
        *results,
        *(samples, channels, hidden_units, kernels),
        GAIN=gain,
        SUM=sum_dtype(pooled),
        BLOCK_SAMPLES=_PLACES,
        BLOCK_CHANNELS=_FEWEST,
        BLOCK_HIDDEN=_block(hidden_units, _INNER),
        BLOCK_KERNELS=_block(kernels),
    )
    return results


@differentiate_route.register_fake
def _empty_route_gradients(
    gradient: Tensor,
    mixing: Tensor,
    pooled: Tensor,
    hidden: Tensor,
    reduce_weight: Tensor,
    expand_weight: Tensor,
    temperature: Tensor,
    gain: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    del gradient, temperature, gain
    return (
        torch.empty_like(pooled),
        torch.empty_like(reduce_weight),
        hidden.new_empty(hidden.shape[1]),
        torch.empty_like(expand_weight),
        mixing.new_empty(mixing.shape[1]),
    )


def _block(size: int, most: int | None = None) -> int:
    """The power of two that is to hold a size, within the bounds."""
    whole = max(_FEWEST, 1 << (size - 1).bit_length())
    return whole if most is None else min(whole, most)


def _count(size: int, block: int) -> int:
    return -(-size // block)
