"""The launches of `norms` as operators of torch, and what they compute by torch's own operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor

from ecd_deploy.distill.convolution.triton.support import sum_dtype

MOST_GRADIENTS = 4
"""That a launch adds up."""

_BLOCK, _MOST_PLACES, _WARPS = 8192, 1024, 16


@torch.library.custom_op("ecd_deploy::normalise", mutates_args=("running_mean", "running_variance"))
def normalise(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_variance: Tensor,
    added: Tensor | None,
    behind: Tensor | None,
    momentum: float,
    eps: float,
    rectifies: bool,
    pooled: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Batch norm in training, then where they are wanted: an addition, ReLU, and an addition `behind` it.

    Shapes: (N, C, ...), (C,) four times, (N, C, ...) twice.

    Returns:
        What is rectified (N, C, ...), mean and 1 / sqrt(variance + eps) (C,); the sum with what is behind, and in the
        dtype `pooled` the means (N, C) over the places of what comes last; empty if not wanted.
    """
    from ecd_deploy.training.fused import norms

    results = (
        torch.empty_like(features),
        torch.empty_like(weight),
        torch.empty_like(weight),
        features.new_empty(0 if behind is None else features.shape),
        features.new_empty((0,) if pooled is None else features.shape[:2], dtype=pooled),
    )
    norms.normalise[features.shape[1],](
        *(features, weight, bias, running_mean, running_variance),
        *(features if added is None else added, features if behind is None else behind),
        *results,
        **_shape(features),
        MOMENTUM=momentum,
        EPS=eps,
        IS_ADDED=added is not None,
        RECTIFIES=rectifies,
        IS_BEHIND=behind is not None,
        POOLS=pooled is not None,
    )
    return results


@torch.library.custom_op("ecd_deploy::differentiate_rectified", mutates_args=())
def differentiate_rectified(
    gradients: Sequence[Tensor],
    output: Tensor,
    features: Tensor,
    weight: Tensor,
    mean: Tensor,
    inverse_deviation: Tensor,
    beside: Tensor | None,
    passes: bool,
    sums: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of a rectified norm from up to `MOST_GRADIENTS` of its output that add up.

    Returns:
        Those of features, `beside` added, of weight and of bias; before the ReLU, if it `passes`, and behind it, if
        it `sums`; empty if not wanted.
    """
    from ecd_deploy.training.fused import norms

    first, count = gradients[0], len(gradients)
    results = (
        torch.empty_like(features),
        torch.empty_like(weight),
        torch.empty_like(weight),
        torch.empty_like(first) if passes else first.new_empty(0),
        torch.empty_like(first) if sums else first.new_empty(0),
    )
    norms.differentiate[features.shape[1],](
        *(*gradients, *[first] * (MOST_GRADIENTS - count)),
        *(output, features, weight, mean, inverse_deviation, first if beside is None else beside),
        *results,
        **_shape(features),
        COUNT=count,
        IS_BESIDE=beside is not None,
        PASSES=passes,
        SUMS=sums,
    )
    return results


def _shape(features: Tensor) -> dict[str, Any]:
    samples, channels = features.shape[:2]
    places = features[0, 0].numel()
    block = min(_MOST_PLACES, 1 << (places - 1).bit_length())
    return {
        "samples": samples,
        "channels": channels,
        "places": places,
        "SUM": sum_dtype(features),
        "BLOCK_SAMPLES": _BLOCK // block,
        "BLOCK_PLACES": block,
        "num_warps": _WARPS,
    }


def normalise_by_torch(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_variance: Tensor,
    added: Tensor | None,
    behind: Tensor | None,
    momentum: float,
    eps: float,
    rectifies: bool,
    pooled: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What `normalise` does."""
    found = torch.native_batch_norm(features, weight, bias, running_mean, running_variance, True, momentum, eps)
    output, mean, inverse_deviation = found
    output = output if added is None else output + added
    output = F.relu(output) if rectifies else output
    total = output if behind is None else output + behind
    empty = features.new_empty(0)
    means = empty.clone() if pooled is None else total.reshape(*total.shape[:2], -1).mean(dim=2).to(pooled)
    return output, mean, inverse_deviation, empty if behind is None else total, means


def differentiate_by_torch(
    gradients: Sequence[Tensor],
    output: Tensor,
    features: Tensor,
    weight: Tensor,
    mean: Tensor,
    inverse_deviation: Tensor,
    beside: Tensor | None,
    passes: bool,
    sums: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What `differentiate_rectified` does."""
    total = torch.stack(list(gradients)).sum(dim=0)
    received = torch.ops.aten.threshold_backward(total, output, 0)
    to_features, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
        received, features, weight, None, None, mean, inverse_deviation, True, 0.0, [True] * 3
    )
    to_features = to_features if beside is None else to_features + beside
    empty = received.new_empty(0)
    return to_features, to_weight, to_bias, received if passes else empty, total if sums else empty.clone()


NORMALISE = torch.ops.ecd_deploy.normalise.default
DIFFERENTIATE = torch.ops.ecd_deploy.differentiate_rectified.default
REFERENCES: dict[Any, Callable[..., Any]] = {NORMALISE: normalise_by_torch, DIFFERENTIATE: differentiate_by_torch}
"""By each launch what does the same by torch's operations."""
