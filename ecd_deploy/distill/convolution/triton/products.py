"""Triton's side of a dynamic convolution: the products of each sample with its own kernel.

A convolution is one matrix product for each sample and group, whose operands are gathered as they are needed: the
kernels are a matrix (O/G, C/G h w), and a column of the other factor is what a place of the output sees. Features and
kernels are contiguous; sums are float32, of float64 float64. `channels` and `out_channels` are those of one group.

Triton: <https://triton-lang.org>. Without a GPU its interpreter runs these functions, with TRITON_INTERPRET=1.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def convolve(
    features,
    kernels,
    bias,
    student,
    connection,
    output,
    channels,
    out_channels,
    student_channels,
    height,
    width,
    out_height,
    out_width,
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    STRIDE_H: tl.constexpr,
    STRIDE_W: tl.constexpr,
    PADDING_H: tl.constexpr,
    PADDING_W: tl.constexpr,
    DILATION_H: tl.constexpr,
    DILATION_W: tl.constexpr,
    GROUPS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    IS_CONNECTED: tl.constexpr,
    SUM: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_PLACES: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
):
    """Write a block (outputs of a group, places) of `conv(features, kernels) + bias + connection @ student`.

    Programs: (samples, blocks of places, groups x blocks of outputs).
    """
    sample = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK_PLACES + tl.arange(0, BLOCK_PLACES)
    blocks = tl.cdiv(out_channels, BLOCK_OUT)
    group = tl.program_id(2) // blocks
    out = (tl.program_id(2) % blocks) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    places = out_height * out_width
    taps = KERNEL_H * KERNEL_W
    inner = channels * taps
    features += (sample * GROUPS + group) * channels * height * width
    kernels += (sample * GROUPS + group) * out_channels * inner
    top = (place // out_width) * STRIDE_H - PADDING_H
    left = (place % out_width) * STRIDE_W - PADDING_W
    total = tl.zeros((BLOCK_OUT, BLOCK_PLACES), SUM)
    for start in range(0, inner, BLOCK_INNER):
        index = start + tl.arange(0, BLOCK_INNER)
        tap = index % taps
        row = top[None, :] + (tap // KERNEL_W * DILATION_H)[:, None]
        column = left[None, :] + (tap % KERNEL_W * DILATION_W)[:, None]
        is_inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        is_inside &= (index < inner)[:, None] & (place < places)[None, :]
        seen = tl.load(features + ((index // taps)[:, None] * height + row) * width + column, mask=is_inside, other=0.0)
        kernel = tl.load(
            kernels + out[:, None] * inner + index[None, :],
            mask=(out < out_channels)[:, None] & (index < inner)[None, :],
            other=0.0,
        )
        total = tl.dot(kernel.to(OPERAND), seen.to(OPERAND), total, input_precision=PRECISION, out_dtype=SUM)
    absolute = group * out_channels + out
    if IS_CONNECTED:
        student += sample * student_channels * places
        for start in range(0, student_channels, BLOCK_INNER):
            index = start + tl.arange(0, BLOCK_INNER)
            seen = tl.load(
                student + index[:, None] * places + place[None, :],
                mask=(index < student_channels)[:, None] & (place < places)[None, :],
                other=0.0,
            )
            weight = tl.load(
                connection + absolute[:, None] * student_channels + index[None, :],
                mask=(out < out_channels)[:, None] & (index < student_channels)[None, :],
                other=0.0,
            )
            total = tl.dot(weight.to(OPERAND), seen.to(OPERAND), total, input_precision=PRECISION, out_dtype=SUM)
    if HAS_BIAS:
        shift = tl.load(bias + sample * GROUPS * out_channels + absolute, mask=out < out_channels, other=0.0)
        total += shift[:, None].to(SUM)
    tl.store(
        output + (sample * GROUPS * out_channels + absolute)[:, None] * places + place[None, :],
        total.to(output.dtype.element_ty),
        mask=(out < out_channels)[:, None] & (place < places)[None, :],
    )


@triton.jit
def differentiate_features(
    gradient,
    kernels,
    pooled_gradient,
    features_gradient,
    channels,
    out_channels,
    height,
    width,
    out_height,
    out_width,
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    STRIDE_H: tl.constexpr,
    STRIDE_W: tl.constexpr,
    PADDING_H: tl.constexpr,
    PADDING_W: tl.constexpr,
    DILATION_H: tl.constexpr,
    DILATION_W: tl.constexpr,
    GROUPS: tl.constexpr,
    SUM: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_PLACES: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
):
    """Write a block (channels of a group, places) of the features' gradient, that of their means included.

    `pooled_gradient` is (samples, channels). Programs: (samples, blocks of places, groups x blocks of channels).
    """
    sample = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK_PLACES + tl.arange(0, BLOCK_PLACES)
    blocks = tl.cdiv(channels, BLOCK_CHANNELS)
    group = tl.program_id(2) // blocks
    channel = (tl.program_id(2) % blocks) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    places = height * width
    taps = KERNEL_H * KERNEL_W
    inner = out_channels * taps
    gradient += (sample * GROUPS + group) * out_channels * out_height * out_width
    kernels += (sample * GROUPS + group) * out_channels * channels * taps
    bottom = place // width + PADDING_H
    right = place % width + PADDING_W
    total = tl.zeros((BLOCK_CHANNELS, BLOCK_PLACES), SUM)
    for start in range(0, inner, BLOCK_INNER):
        index = start + tl.arange(0, BLOCK_INNER)
        out = index // taps
        tap = index % taps
        row = bottom[None, :] - (tap // KERNEL_W * DILATION_H)[:, None]
        column = right[None, :] - (tap % KERNEL_W * DILATION_W)[:, None]
        # of what is negative the quotient and the rest are not used
        is_inside = (row >= 0) & (column >= 0) & (row % STRIDE_H == 0) & (column % STRIDE_W == 0)
        row = row // STRIDE_H
        column = column // STRIDE_W
        is_inside &= (row < out_height) & (column < out_width)
        is_inside &= (index < inner)[:, None] & (place < places)[None, :]
        seen = tl.load(gradient + (out[:, None] * out_height + row) * out_width + column, mask=is_inside, other=0.0)
        kernel = tl.load(
            kernels + (out[None, :] * channels + channel[:, None]) * taps + tap[None, :],
            mask=(channel < channels)[:, None] & (index < inner)[None, :],
            other=0.0,
        )
        total = tl.dot(kernel.to(OPERAND), seen.to(OPERAND), total, input_precision=PRECISION, out_dtype=SUM)
    absolute = sample * GROUPS * channels + group * channels + channel
    of_pooled = tl.load(pooled_gradient + absolute, mask=channel < channels, other=0.0).to(SUM)
    total += (of_pooled / places)[:, None]
    tl.store(
        features_gradient + absolute[:, None] * places + place[None, :],
        total.to(features_gradient.dtype.element_ty),
        mask=(channel < channels)[:, None] & (place < places)[None, :],
    )


@triton.jit
def differentiate_kernels(
    gradient,
    features,
    kernels_gradient,
    channels,
    out_channels,
    height,
    width,
    out_height,
    out_width,
    KERNEL_H: tl.constexpr,
    KERNEL_W: tl.constexpr,
    STRIDE_H: tl.constexpr,
    STRIDE_W: tl.constexpr,
    PADDING_H: tl.constexpr,
    PADDING_W: tl.constexpr,
    DILATION_H: tl.constexpr,
    DILATION_W: tl.constexpr,
    GROUPS: tl.constexpr,
    SUM: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_PLACES: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
):
    """Write a block (outputs of a group, inputs x taps) of the gradient of each sample's kernel.

    Programs: (samples, blocks of inputs x taps, groups x blocks of outputs).
    """
    sample = tl.program_id(0).to(tl.int64)
    blocks = tl.cdiv(out_channels, BLOCK_OUT)
    group = tl.program_id(2) // blocks
    out = (tl.program_id(2) % blocks) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    places = out_height * out_width
    taps = KERNEL_H * KERNEL_W
    inner = channels * taps
    index = tl.program_id(1) * BLOCK_INNER + tl.arange(0, BLOCK_INNER)
    tap = index % taps
    down = tap // KERNEL_W * DILATION_H - PADDING_H
    across = tap % KERNEL_W * DILATION_W - PADDING_W
    gradient += (sample * GROUPS + group) * out_channels * places
    features += (sample * GROUPS + group) * channels * height * width
    total = tl.zeros((BLOCK_OUT, BLOCK_INNER), SUM)
    for start in range(0, places, BLOCK_PLACES):
        place = start + tl.arange(0, BLOCK_PLACES)
        row = (place // out_width * STRIDE_H)[:, None] + down[None, :]
        column = (place % out_width * STRIDE_W)[:, None] + across[None, :]
        is_inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        is_inside &= (place < places)[:, None] & (index < inner)[None, :]
        seen = tl.load(features + ((index // taps)[None, :] * height + row) * width + column, mask=is_inside, other=0.0)
        received = tl.load(
            gradient + out[:, None] * places + place[None, :],
            mask=(out < out_channels)[:, None] & (place < places)[None, :],
            other=0.0,
        )
        total = tl.dot(received.to(OPERAND), seen.to(OPERAND), total, input_precision=PRECISION, out_dtype=SUM)
    kernels_gradient += (sample * GROUPS + group) * out_channels * inner
    tl.store(
        kernels_gradient + out[:, None] * inner + index[None, :],
        total.to(kernels_gradient.dtype.element_ty),
        mask=(out < out_channels)[:, None] & (index < inner)[None, :],
    )
