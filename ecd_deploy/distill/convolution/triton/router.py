"""Triton's side of the router: means of the features, two layers and softmax as one launch, backward as another.

Sums are float32, of float64 float64, and products are not rounded to TF32: the gradient of a router is a small
difference of large numbers.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def route(
    features,
    reduce_weight,
    reduce_bias,
    expand_weight,
    expand_bias,
    temperature,
    pooled,
    hidden,
    mixing,
    channels,
    places,
    hidden_units,
    kernel_count,
    GAIN: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_PLACES: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
    BLOCK_KERNELS: tl.constexpr,
):
    """Write a sample's means, hidden units and `gain * softmax(scores / temperature)`. Programs: (samples,)."""
    sample = tl.program_id(0).to(tl.int64)
    unit = tl.arange(0, BLOCK_HIDDEN)
    kernel = tl.arange(0, BLOCK_KERNELS)
    features += sample * channels * places
    units = tl.load(reduce_bias + unit, mask=unit < hidden_units, other=0.0).to(SUM)
    for start in range(0, channels, BLOCK_CHANNELS):
        channel = start + tl.arange(0, BLOCK_CHANNELS)
        sums = tl.zeros((BLOCK_CHANNELS, BLOCK_PLACES), SUM)
        for first in range(0, places, BLOCK_PLACES):
            place = first + tl.arange(0, BLOCK_PLACES)
            sums += tl.load(
                features + channel[:, None] * places + place[None, :],
                mask=(channel < channels)[:, None] & (place < places)[None, :],
                other=0.0,
            ).to(SUM)
        means = tl.sum(sums, 1) / places
        tl.store(pooled + sample * channels + channel, means, mask=channel < channels)
        weight = tl.load(
            reduce_weight + unit[:, None] * channels + channel[None, :],
            mask=(unit < hidden_units)[:, None] & (channel < channels)[None, :],
            other=0.0,
        ).to(SUM)
        units += tl.sum(weight * means[None, :], 1)
    units = tl.maximum(units, 0.0)
    tl.store(hidden + sample * hidden_units + unit, units, mask=unit < hidden_units)
    weight = tl.load(
        expand_weight + kernel[:, None] * hidden_units + unit[None, :],
        mask=(kernel < kernel_count)[:, None] & (unit < hidden_units)[None, :],
        other=0.0,
    ).to(SUM)
    scores = tl.load(expand_bias + kernel, mask=kernel < kernel_count, other=0.0).to(SUM)
    scores = (scores + tl.sum(weight * units[None, :], 1)) / tl.load(temperature).to(SUM)
    scores = tl.where(kernel < kernel_count, scores, float("-inf"))
    shares = tl.exp(scores - tl.max(scores, 0))
    shares = shares / tl.sum(shares, 0)
    tl.store(mixing + sample * kernel_count + kernel, GAIN * shares, mask=kernel < kernel_count)


@triton.jit
def _scores_gradient(
    mixing_gradient,
    mixing,
    temperature,
    sample,
    samples,
    kernel_count,
    GAIN: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradient of some samples' scores, (samples, kernels)."""
    kernel = tl.arange(0, BLOCK)
    place = sample[:, None] * kernel_count + kernel[None, :]
    mask = (sample < samples)[:, None] & (kernel < kernel_count)[None, :]
    shares = tl.load(mixing + place, mask=mask, other=0.0).to(SUM)
    received = tl.load(mixing_gradient + place, mask=mask, other=0.0).to(SUM)
    # what was saved are the shares times the gain
    centred = received - tl.sum(shares * received, 1)[:, None] / GAIN
    return shares * centred / tl.load(temperature).to(SUM)


@triton.jit
def _hidden_gradient(
    scores_gradient,
    hidden,
    expand_weight,
    sample,
    unit,
    samples,
    hidden_units,
    kernel_count,
    SUM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradient of some of the hidden units of some samples before the ReLU, (samples, units), and the units."""
    kernel = tl.arange(0, BLOCK)
    weight = tl.load(
        expand_weight + kernel[:, None] * hidden_units + unit[None, :],
        mask=(kernel < kernel_count)[:, None] & (unit < hidden_units)[None, :],
        other=0.0,
    ).to(SUM)
    units = tl.load(
        hidden + sample[:, None] * hidden_units + unit[None, :],
        mask=(sample < samples)[:, None] & (unit < hidden_units)[None, :],
        other=0.0,
    ).to(SUM)
    product = tl.dot(scores_gradient, weight, input_precision="ieee", out_dtype=SUM)
    return tl.where(units > 0, product, 0.0), units


@triton.jit(do_not_specialize=["samples"])  # so that what was checked is what any batch is computed by
def differentiate_route(
    mixing_gradient,
    mixing,
    pooled,
    hidden,
    reduce_weight,
    expand_weight,
    temperature,
    pooled_gradient,
    reduce_weight_gradient,
    reduce_bias_gradient,
    expand_weight_gradient,
    expand_bias_gradient,
    samples,
    channels,
    hidden_units,
    kernel_count,
    GAIN: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK_SAMPLES: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
    BLOCK_KERNELS: tl.constexpr,
):
    """Write the router's gradients: those of a block of channels, and in the first program all others.

    Everything but the large factors is made anew in each program. Programs: (blocks of channels,).
    """
    channel = tl.program_id(0) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    kernel = tl.arange(0, BLOCK_KERNELS)
    for start in range(0, samples, BLOCK_SAMPLES):
        sample = start + tl.arange(0, BLOCK_SAMPLES)
        scores = _scores_gradient(
            mixing_gradient, mixing, temperature, sample, samples, kernel_count, GAIN, SUM, BLOCK_KERNELS
        )
        total = tl.zeros((BLOCK_SAMPLES, BLOCK_CHANNELS), SUM)
        for first in range(0, hidden_units, BLOCK_HIDDEN):
            unit = first + tl.arange(0, BLOCK_HIDDEN)
            units_gradient, _ = _hidden_gradient(
                scores, hidden, expand_weight, sample, unit, samples, hidden_units, kernel_count, SUM, BLOCK_KERNELS
            )
            weight = tl.load(
                reduce_weight + unit[:, None] * channels + channel[None, :],
                mask=(unit < hidden_units)[:, None] & (channel < channels)[None, :],
                other=0.0,
            ).to(SUM)
            total = tl.dot(units_gradient, weight, total, input_precision="ieee", out_dtype=SUM)
        tl.store(
            pooled_gradient + sample[:, None] * channels + channel[None, :],
            total,
            mask=(sample < samples)[:, None] & (channel < channels)[None, :],
        )
    is_first = tl.program_id(0) == 0
    for first in range(0, hidden_units, BLOCK_HIDDEN):
        unit = first + tl.arange(0, BLOCK_HIDDEN)
        to_reduce = tl.zeros((BLOCK_HIDDEN, BLOCK_CHANNELS), SUM)
        to_expand = tl.zeros((BLOCK_KERNELS, BLOCK_HIDDEN), SUM)
        to_hidden = tl.zeros((BLOCK_HIDDEN,), SUM)
        to_scores = tl.zeros((BLOCK_KERNELS,), SUM)
        for start in range(0, samples, BLOCK_SAMPLES):
            sample = start + tl.arange(0, BLOCK_SAMPLES)
            scores = _scores_gradient(
                mixing_gradient, mixing, temperature, sample, samples, kernel_count, GAIN, SUM, BLOCK_KERNELS
            )
            units_gradient, units = _hidden_gradient(
                scores, hidden, expand_weight, sample, unit, samples, hidden_units, kernel_count, SUM, BLOCK_KERNELS
            )
            means = tl.load(
                pooled + sample[:, None] * channels + channel[None, :],
                mask=(sample < samples)[:, None] & (channel < channels)[None, :],
                other=0.0,
            ).to(SUM)
            to_reduce = tl.dot(tl.trans(units_gradient), means, to_reduce, input_precision="ieee", out_dtype=SUM)
            to_expand = tl.dot(tl.trans(scores), units, to_expand, input_precision="ieee", out_dtype=SUM)
            to_hidden += tl.sum(units_gradient, 0)
            to_scores += tl.sum(scores, 0)
        tl.store(
            reduce_weight_gradient + unit[:, None] * channels + channel[None, :],
            to_reduce,
            mask=(unit < hidden_units)[:, None] & (channel < channels)[None, :],
        )
        tl.store(
            expand_weight_gradient + kernel[:, None] * hidden_units + unit[None, :],
            to_expand,
            mask=(kernel < kernel_count)[:, None] & (unit < hidden_units)[None, :] & is_first,
        )
        tl.store(reduce_bias_gradient + unit, to_hidden, mask=(unit < hidden_units) & is_first)
        tl.store(expand_bias_gradient + kernel, to_scores, mask=(kernel < kernel_count) & is_first)
