"""The launches of the mixing of kernels as operators of torch, as `operators` has those of the convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ecd_deploy.distill.convolution.triton.support import FEWEST, block_for, count_blocks, sum_dtype

_SAMPLES, _HIDDEN, _COLUMNS = 64, 32, 128  # of a block, at most
_MIXED_PARTS = 128  # of the columns, at most: programs that each make the mixing weights anew
_PART_COLUMNS, _MOST_PARTS = 8192, 64  # of the columns, for each a gradient of the mixing weights
_PARTS = 8  # of a block


@torch.library.custom_op("ecd_deploy::mix", mutates_args=())
def mix(
    pooled: Tensor, router: Sequence[Tensor], gain: float, weight: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Mix kernels by weights from means over the places, two layers and a softmax; `gain` multiplies the weights.

    Shapes: (N, C), those of `RouterTensors`, and (n, O, C/G, h, w) of the kernels, which may be of another dtype.

    Returns:
        (N, O, C/G, h, w) in the dtype that is given, (N, n) the mixing weights, (N, K) the hidden units.
    """
    from ecd_deploy.distill.convolution.triton import mixing as kernels

    results: tuple[Tensor, Tensor, Tensor] = _empty_mixture(pooled, router, gain, weight, dtype)
    (samples, channels), hidden, columns = pooled.shape, results[2].shape[1], weight[0].numel()
    grid = (count_blocks(samples, _SAMPLES), min(count_blocks(columns, _COLUMNS), _MIXED_PARTS))
    kernels.mix[grid](
        *(pooled, *router, weight),
        *results,
        *(samples, channels, hidden, len(weight), columns),
        GAIN=gain,
        SUM=sum_dtype(pooled),
        BLOCK_SAMPLES=_SAMPLES,
        BLOCK_CHANNELS=block_for(channels, _HIDDEN),
        BLOCK_HIDDEN=block_for(hidden, _HIDDEN),
        BLOCK_KERNELS=block_for(len(weight)),
        BLOCK_COLUMNS=_COLUMNS,
    )
    return results


@mix.register_fake
def _empty_mixture(
    pooled: Tensor, router: Sequence[Tensor], _gain: float, weight: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    samples, (reduce_weight, *_) = len(pooled), router
    kernels = pooled.new_empty(samples, *weight.shape[1:], dtype=dtype)
    return kernels, pooled.new_empty(samples, len(weight)), pooled.new_empty(samples, len(reduce_weight))


@torch.library.custom_op("ecd_deploy::differentiate_mixing", mutates_args=())
def differentiate_mixing(gradient: Tensor, mixing: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of kernels and mixing weights from those of the mixtures, which may be of another dtype.

    Shapes: (N, O C/G h w and others), (N, n), (n, O, C/G, h, w).

    Returns:
        (n, O, C/G, h, w), the sums of the others over the samples, and (P, N, n) parts of the mixing weights' gradient.
    """
    from ecd_deploy.distill.convolution.triton import mixing as kernels

    results: tuple[Tensor, Tensor, Tensor] = _empty_mixing_gradients(gradient, mixing, weight)
    columns, others, parts = weight[0].numel(), len(results[1]), len(results[2])
    programs = sum(count_blocks(size, _COLUMNS) for size in (columns, others))
    kernels.differentiate_mixing[programs + parts * count_blocks(len(mixing), FEWEST),](
        *(gradient, mixing, weight),
        *results,
        *(len(mixing), len(weight), columns, others, parts),
        SUM=sum_dtype(mixing),
        BLOCK_SAMPLES=FEWEST,
        BLOCK_KERNELS=block_for(len(weight)),
        BLOCK_COLUMNS=_COLUMNS,
    )
    return results


@differentiate_mixing.register_fake
def _empty_mixing_gradients(gradient: Tensor, mixing: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    columns = weight[0].numel()
    parts = min(count_blocks(columns, _PART_COLUMNS), _MOST_PARTS)
    return (
        torch.empty_like(weight),
        weight.new_empty(gradient.shape[1] - columns),
        mixing.new_empty(parts, *mixing.shape),
    )


@torch.library.custom_op("ecd_deploy::differentiate_route", mutates_args=())
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
    """Gradients of the means, and of weight and bias of both layers, from parts of that of the mixing weights.

    Shapes: (P, N, n), (N, n), (N, C), (N, K), (K, C), (n, K), () -> (N, C), (K, C), (K,), (n, K), (n,).
    """
    from ecd_deploy.distill.convolution.triton import mixing as kernels

    results: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = _empty_route_gradients(
        parts, mixing, pooled, hidden, reduce_weight, expand_weight
    )
    (samples, channels), hidden_units = pooled.shape, hidden.shape[1]
    kernels.differentiate_route[count_blocks(channels, FEWEST),](
        *(parts, mixing, pooled, hidden, reduce_weight, expand_weight, temperature),
        *results,
        *(samples, channels, hidden_units, mixing.shape[1], len(parts)),
        GAIN=gain,
        SUM=sum_dtype(pooled),
        BLOCK_SAMPLES=_SAMPLES,
        BLOCK_CHANNELS=FEWEST,
        BLOCK_HIDDEN=block_for(hidden_units, _HIDDEN),
        BLOCK_KERNELS=block_for(mixing.shape[1]),
        BLOCK_PARTS=_PARTS,
    )
    return results


@differentiate_route.register_fake
def _empty_route_gradients(
    _parts: Tensor, mixing: Tensor, pooled: Tensor, hidden: Tensor, *others: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    reduce_weight, expand_weight, *_ = others
    return (
        torch.empty_like(pooled),
        torch.empty_like(reduce_weight),
        hidden.new_empty(hidden.shape[1]),
        torch.empty_like(expand_weight),
        mixing.new_empty(mixing.shape[1]),
    )
