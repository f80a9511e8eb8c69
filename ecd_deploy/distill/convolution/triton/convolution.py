"""A dynamic convolution by Triton: three launches forward, four backward.

Forward: means over the places; router and mixture of the kernels; convolution, bias, and two connections `W phi_S`.
Backward: weights, a sample at a time; kernels and mixing weights from them; the router; features, means included.

Shape letters as in `dynamic_conv`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecd_deploy.distill.convolution.sample_convolution import Geometry
from ecd_deploy.distill.convolution.triton import mixing_operators, operators


class RouterTensors(NamedTuple):
    """Weight and bias of both layers, (K, C), (K,), (n, K), (n,), and the temperature, ()."""

    reduce_weight: Tensor
    reduce_bias: Tensor
    expand_weight: Tensor
    expand_bias: Tensor
    temperature: Tensor


@dataclass(kw_only=True)
class Offer:
    """A connection that a convolution may compute beside its own output, which is as large.

    Attributes:
        student: the feature of the student, (N, O, H', W').
        weight: what it is multiplied by, (O, O, 1, 1).
        is_later: whether it is not added to the output, but later.
        is_taken: whether the convolution did compute it.
        product: what is to be added later, (N, O, H', W').
    """

    student: Tensor
    weight: Tensor
    is_later: bool
    is_taken: bool = False
    product: Tensor | None = None


@dataclass(frozen=True)
class Arithmetic:
    """Of a dynamic convolution: the dtype of its products, its geometry, and what multiplies the mixing weights."""

    dtype: torch.dtype
    geometry: Geometry
    gain: float


def convolve_by_triton(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    router: RouterTensors,
    added: Offer | None,
    later: Offer | None,
    arithmetic: Arithmetic,
) -> Tensor:
    """Mix each sample's kernel, apply it and take what is offered; the result is no view, and differentiable once.

    Args:
        features: (N, C, H, W).
        weight: (n, O, C/G, h, w).
        bias: (n, O).
        router: what gives the mixing weights.
        added: a connection that is added to the output.
        later: one that is not.
        arithmetic: how.

    Returns:
        (N, O, H', W').
    """
    offers = [offer for offer in (added, later) if offer is not None]
    connections = [tensor for offer in offers for tensor in (offer.student, offer.weight)]
    output, product = _DynamicConvolution.apply(
        features, weight, bias, *router, arithmetic, added is not None, *connections
    )
    for offer in offers:
        offer.is_taken = True
        offer.product = product if offer.is_later else None
    result: Tensor = output
    return result


class _DynamicConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        reduce_weight: Tensor,
        reduce_bias: Tensor,
        expand_weight: Tensor,
        expand_bias: Tensor,
        temperature: Tensor,
        arithmetic: Arithmetic,
        adds: bool,
        *connections: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        dtype, geometry = arithmetic.dtype, arithmetic.geometry
        given = features.to(dtype).contiguous()
        pooled = given.mean(dim=(2, 3), dtype=reduce_weight.dtype)
        router = RouterTensors(reduce_weight, reduce_bias, expand_weight, expand_bias, temperature)
        kernels, mixing, hidden = mixing_operators.mix(pooled, router, arithmetic.gain, weight, dtype)
        biases = None if bias is None else (mixing @ bias).to(dtype)
        students = [student.to(dtype).contiguous() for student in connections[::2]]
        matrices = [connection.flatten(1).to(dtype) for connection in connections[1::2]]
        added = [students[0], matrices[0]] if adds else []
        later = [students[-1], matrices[-1]] if len(students) > adds else []
        output, *product = operators.convolve_samples(given, kernels, biases, added, later, geometry.numbers)
        ctx.save_for_backward(
            *(given, kernels, mixing, pooled, hidden, weight, bias),
            *(reduce_weight, expand_weight, temperature, *students, *matrices),
        )
        ctx.arithmetic, ctx.adds = arithmetic, adds
        return output, product[0] if product else None

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, later_gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        given, kernels, mixing, pooled, hidden, weight, bias, *rest = ctx.saved_tensors
        reduce_weight, expand_weight, temperature, *connections = rest
        students, matrices = connections[: len(connections) // 2], connections[len(connections) // 2 :]
        dtype, geometry = ctx.arithmetic.dtype, ctx.arithmetic.geometry
        gradient = gradient.to(dtype).contiguous()
        received = [gradient] if ctx.adds else []
        if later_gradient is not None:
            received.append(later_gradient.to(dtype).contiguous())
        of_samples = operators.differentiate_weights(
            gradient, given, received, students, weight.shape[3:], geometry.numbers
        )
        # autograd itself gives each gradient the dtype of what it belongs to
        weight_gradient, sums, parts = mixing_operators.differentiate_mixing(of_samples, mixing, weight)
        bias_gradient = None
        if bias is not None:
            of_biases = gradient.sum(dim=(2, 3), dtype=mixing.dtype)
            parts = torch.cat([parts, (of_biases @ bias.t())[None]])
            bias_gradient = mixing.t() @ of_biases
        pooled_gradient, *router_gradients = mixing_operators.differentiate_route(
            parts, mixing, pooled, hidden, reduce_weight, expand_weight, temperature, ctx.arithmetic.gain
        )
        features_gradient, *to_students = operators.differentiate_features(
            gradient, kernels, pooled_gradient, received, matrices, given.shape[2:], geometry.numbers
        )
        to_matrices = [one[:, :, None, None] for one in sums.view(len(matrices), *weight.shape[1:2] * 2)]
        to_connections = [gradient for pair in zip(to_students, to_matrices, strict=True) for gradient in pair]
        of_no_weights = (None, None, None)  # temperature, arithmetic, whether it adds
        return features_gradient, weight_gradient, bias_gradient, *router_gradients, *of_no_weights, *to_connections
