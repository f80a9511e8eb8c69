"""Triton's side of a batch norm in training: statistics, normalising, addition and ReLU as one launch, so backward.

A program does a whole channel, as cuDNN's do it: it reads the channel for the statistics, and again, from the cache, to
normalise it. Tensors are contiguous (samples, channels, places); sums are float32, of float64 float64.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _places(
    channel,
    first,
    start,
    samples,
    channels,
    places,
    BLOCK_SAMPLES: tl.constexpr,
    BLOCK_PLACES: tl.constexpr,
):
    """Where a block of a channel lies, (samples, places), and what of it is inside."""
    sample = first + tl.arange(0, BLOCK_SAMPLES)
    place = start + tl.arange(0, BLOCK_PLACES)
    at = (sample.to(tl.int64) * channels + channel)[:, None] * places + place[None, :]
    return at, (sample < samples)[:, None] & (place < places)[None, :]


@triton.jit(do_not_specialize=["samples"])
def normalise(
    features,
    weight,
    bias,
    running_mean,
    running_variance,
    added,
    behind,
    output,
    mean,
    inverse_deviation,
    total,
    pooled,
    samples,
    channels,
    places,
    MOMENTUM: tl.constexpr,
    EPS: tl.constexpr,
    IS_ADDED: tl.constexpr,
    RECTIFIES: tl.constexpr,
    IS_BEHIND: tl.constexpr,
    POOLS: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK_SAMPLES: tl.constexpr,
    BLOCK_PLACES: tl.constexpr,
):
    """Write `norm(features) + added`, rectified, the batch's statistics and the running ones. Programs: (channels,).

    And, where they are wanted, `total`, that and what is added behind the ReLU, and the means over the places.
    """
    channel = tl.program_id(0)
    count = 0
    average = tl.full((), 0, SUM)
    spread = tl.full((), 0, SUM)
    for first in range(0, samples, BLOCK_SAMPLES):
        for start in range(0, places, BLOCK_PLACES):
            at, inside = _places(channel, first, start, samples, channels, places, BLOCK_SAMPLES, BLOCK_PLACES)
            values = tl.load(features + at, mask=inside, other=0.0).to(SUM)
            # blocks are put together by their means and squared differences: sums of squares would lose digits
            more = tl.minimum(samples - first, BLOCK_SAMPLES) * tl.minimum(places - start, BLOCK_PLACES)
            own = tl.sum(tl.sum(values, 1), 0) / more
            distance = tl.where(inside, values - own, 0.0)
            count += more
            step = own - average
            part = more.to(SUM) / count
            average += step * part
            spread += tl.sum(tl.sum(distance * distance, 1), 0) + step * step * part * (count - more)
    inverse = 1 / tl.sqrt(spread / count + EPS)
    tl.store(mean + channel, average)
    tl.store(inverse_deviation + channel, inverse)
    old_mean = tl.load(running_mean + channel).to(SUM)
    old_variance = tl.load(running_variance + channel).to(SUM)
    tl.store(running_mean + channel, old_mean + MOMENTUM * (average - old_mean))
    tl.store(running_variance + channel, old_variance + MOMENTUM * (spread / (count - 1) - old_variance))
    scale = inverse * tl.load(weight + channel).to(SUM)
    shift = tl.load(bias + channel).to(SUM)
    for first in range(0, samples, BLOCK_SAMPLES):
        sums = tl.zeros((BLOCK_SAMPLES,), SUM)
        for start in range(0, places, BLOCK_PLACES):
            at, inside = _places(channel, first, start, samples, channels, places, BLOCK_SAMPLES, BLOCK_PLACES)
            values = tl.load(features + at, mask=inside, other=0.0).to(SUM)
            values = (values - average) * scale + shift
            if IS_ADDED:
                values += tl.load(added + at, mask=inside, other=0.0).to(SUM)
            if RECTIFIES:
                values = tl.where(values < 0, 0.0, values)  # as torch's, it keeps what is no number
            tl.store(output + at, values.to(output.dtype.element_ty), mask=inside)
            if IS_BEHIND:
                values += tl.load(behind + at, mask=inside, other=0.0).to(SUM)
                tl.store(total + at, values.to(total.dtype.element_ty), mask=inside)
            sums += tl.sum(tl.where(inside, values, 0.0), 1)
        if POOLS:
            sample = first + tl.arange(0, BLOCK_SAMPLES)
            means = (sums / places).to(pooled.dtype.element_ty)
            tl.store(pooled + sample * channels + channel, means, mask=sample < samples)


@triton.jit
def _sum_of(
    gradient,
    second,
    third,
    fourth,
    at,
    inside,
    COUNT: tl.constexpr,
    SUM: tl.constexpr,
):
    """The sum of the gradients of what was rectified."""
    values = tl.load(gradient + at, mask=inside, other=0.0).to(SUM)
    if COUNT > 1:
        values += tl.load(second + at, mask=inside, other=0.0).to(SUM)
    if COUNT > 2:
        values += tl.load(third + at, mask=inside, other=0.0).to(SUM)
    if COUNT > 3:
        values += tl.load(fourth + at, mask=inside, other=0.0).to(SUM)
    return values


@triton.jit(do_not_specialize=["samples"])
def differentiate(
    gradient,
    second,
    third,
    fourth,
    output,
    features,
    weight,
    mean,
    inverse_deviation,
    beside,
    features_gradient,
    weight_gradient,
    bias_gradient,
    passed,
    total,
    samples,
    channels,
    places,
    COUNT: tl.constexpr,
    IS_BESIDE: tl.constexpr,
    PASSES: tl.constexpr,
    SUMS: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK_SAMPLES: tl.constexpr,
    BLOCK_PLACES: tl.constexpr,
):
    """Write the gradients of a rectified norm from `COUNT` that add up to its own. Programs: (channels,).

    `beside` is added to the features' gradient; `passed` is the gradient behind the ReLU, which is also that of what
    was added before it; `total` is their sum.
    """
    channel = tl.program_id(0)
    average = tl.load(mean + channel).to(SUM)
    inverse = tl.load(inverse_deviation + channel).to(SUM)
    to_bias = tl.full((), 0, SUM)
    to_weight = tl.full((), 0, SUM)
    for first in range(0, samples, BLOCK_SAMPLES):
        for start in range(0, places, BLOCK_PLACES):
            at, inside = _places(channel, first, start, samples, channels, places, BLOCK_SAMPLES, BLOCK_PLACES)
            values = _sum_of(gradient, second, third, fourth, at, inside, COUNT, SUM)
            if SUMS:
                tl.store(total + at, values.to(total.dtype.element_ty), mask=inside)
            values = tl.where(tl.load(output + at, mask=inside, other=0.0) <= 0, 0.0, values)
            normalised = (tl.load(features + at, mask=inside, other=0.0).to(SUM) - average) * inverse
            to_bias += tl.sum(tl.sum(values, 1), 0)
            to_weight += tl.sum(tl.sum(values * normalised, 1), 0)
            if PASSES:
                tl.store(passed + at, values.to(passed.dtype.element_ty), mask=inside)
    tl.store(weight_gradient + channel, to_weight)
    tl.store(bias_gradient + channel, to_bias)
    count = samples * places
    scale = tl.load(weight + channel).to(SUM) * inverse
    for first in range(0, samples, BLOCK_SAMPLES):
        for start in range(0, places, BLOCK_PLACES):
            at, inside = _places(channel, first, start, samples, channels, places, BLOCK_SAMPLES, BLOCK_PLACES)
            values = _sum_of(gradient, second, third, fourth, at, inside, COUNT, SUM)
            values = tl.where(tl.load(output + at, mask=inside, other=0.0) <= 0, 0.0, values)
            normalised = (tl.load(features + at, mask=inside, other=0.0).to(SUM) - average) * inverse
            result = (values - to_bias / count - normalised * (to_weight / count)) * scale
            if IS_BESIDE:
                result += tl.load(beside + at, mask=inside, other=0.0).to(SUM)
            tl.store(features_gradient + at, result.to(features_gradient.dtype.element_ty), mask=inside)
