"""A dynamic convolution by Triton: two launches and a matrix product forward, three and two backward.

The router is one, forward and backward; convolution, bias and the connection `W phi_S` are one; backward, the features
are one, their means included, and the kernels one.

Shape letters as in `dynamic_conv`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecd_deploy.distill.additive import differentiate_conv1x1
from ecd_deploy.distill.convolution.sample_convolution import Geometry
from ecd_deploy.distill.convolution.triton import operators as launch


class RouterTensors(NamedTuple):
    """Weight and bias of both layers, (K, C), (K,), (n, K), (n,), and the temperature, ()."""

    reduce_weight: Tensor
    reduce_bias: Tensor
    expand_weight: Tensor
    expand_bias: Tensor
    temperature: Tensor


class Added(NamedTuple):
    """What a connection adds to the output: a student's feature (N, S, H', W') through a weight (O, S, 1, 1)."""

    student: Tensor
    weight: Tensor


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
    added: Added | None,
    arithmetic: Arithmetic,
) -> Tensor:
    """Mix each sample's kernel, apply it and add a connection; the result is no view, and differentiable once.

    Args:
        features: (N, C, H, W).
        weight: (n, O, C/G, h, w).
        bias: (n, O).
        router: what gives the mixing weights.
        added: the connection.
        arithmetic: how.

    Returns:
        (N, O, H', W').
    """
    student, connection = added or (None, None)
    result: Tensor = _DynamicConvolution.apply(features, weight, bias, *router, student, connection, arithmetic)
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
        student: Tensor | None,
        connection: Tensor | None,
        arithmetic: Arithmetic,
    ) -> Tensor:
        dtype, geometry = arithmetic.dtype, arithmetic.geometry
        given = features.to(dtype).contiguous()
        mixing, pooled, hidden = launch.route(
            given, reduce_weight, reduce_bias, expand_weight, expand_bias, temperature, arithmetic.gain
        )
        kernels = (mixing.to(dtype) @ weight.flatten(1).to(dtype)).view(len(features), *weight.shape[1:])
        biases = None if bias is None else (mixing @ bias).to(dtype)
        added = None if student is None else student.to(dtype).contiguous()
        matrix = None if connection is None else connection.flatten(1).to(dtype)
        output: Tensor = launch.convolve_samples(given, kernels, biases, added, matrix, geometry.numbers)
        ctx.save_for_backward(
            *(given, kernels, mixing, pooled, hidden, weight, bias),
            *(reduce_weight, expand_weight, temperature, added, matrix),
        )
        ctx.arithmetic = arithmetic
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        given, kernels, mixing, pooled, hidden, weight, bias, *rest = ctx.saved_tensors
        reduce_weight, expand_weight, temperature, added, matrix = rest
        dtype, geometry = ctx.arithmetic.dtype, ctx.arithmetic.geometry
        gradient = gradient.to(dtype).contiguous()
        flat = launch.differentiate_kernels(gradient, given, weight.shape[3:], geometry.numbers).flatten(1)
        # autograd itself gives each gradient the dtype of what it belongs to
        mixing_gradient = (flat @ weight.flatten(1).to(dtype).t()).to(mixing.dtype)
        weight_gradient = (mixing.to(dtype).t() @ flat).view_as(weight)
        bias_gradient = None
        if bias is not None:
            sums = gradient.sum(dim=(2, 3), dtype=mixing.dtype)
            mixing_gradient.addmm_(sums, bias.t())
            bias_gradient = mixing.t() @ sums
        pooled_gradient, *router_gradients = launch.differentiate_route(
            mixing_gradient, mixing, pooled, hidden, reduce_weight, expand_weight, temperature, ctx.arithmetic.gain
        )
        features_gradient = student_gradient = connection_gradient = None
        if ctx.needs_input_grad[0]:
            features_gradient = launch.differentiate_features(
                gradient, kernels, pooled_gradient, given.shape[2:], geometry.numbers
            )
        if added is not None:
            wanted = ctx.needs_input_grad[8], ctx.needs_input_grad[9]
            student_gradient, connection_gradient = differentiate_conv1x1(
                gradient, added, matrix[:, :, None, None], wanted
            )
        return (
            *(features_gradient, weight_gradient, bias_gradient, *router_gradients, None),
            *(student_gradient, connection_gradient, None),
        )
