"""Triton's side of a dynamic convolution: the products of each sample with its own kernel.

A convolution is one matrix product for each sample and group, whose operands are gathered as they are needed: the
kernels are a matrix (O/G, C/G h w), and a column of the other factor is what a place of the output sees. Features and
kernels are contiguous; sums are float32, of float64 float64. `channels` and `out_channels` are those of one group.

The same launches compute up to two connections `W phi_S`, with features as large as the output: one is added to it, and
a later one, of a layer that follows, is kept by itself.

Triton: <https://triton-lang.org>. Without a GPU its interpreter runs these functions, with TRITON_INTERPRET=1.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def add_product(
    total,
    left,
    left_row,
    left_column,
    right,
    right_row,
    right_column,
    row,
    rows,
    inner,
    column,
    columns,
    SUM: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
):
    """A block of `total + left @ right`, (rows, inner) times (inner, columns), whose strides are given."""
    for start in range(0, inner, BLOCK_INNER):
        index = start + tl.arange(0, BLOCK_INNER)
        first = tl.load(
            left + row[:, None] * left_row + index[None, :] * left_column,
            mask=(row < rows)[:, None] & (index < inner)[None, :],
            other=0.0,
        )
        second = tl.load(
            right + index[:, None] * right_row + column[None, :] * right_column,
            mask=(index < inner)[:, None] & (column < columns)[None, :],
            other=0.0,
        )
        total = tl.dot(first.to(OPERAND), second.to(OPERAND), total, input_precision=PRECISION, out_dtype=SUM)
    return total


@triton.jit
def convolve(
    features,
    kernels,
    bias,
    student,
    connection,
    later_student,
    later_connection,
    output,
    later,
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
    HAS_BIAS: tl.constexpr,
    IS_CONNECTED: tl.constexpr,
    IS_LATER: tl.constexpr,
    SUM: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_PLACES: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
):
    """Write a block (outputs of a group, places) of `conv(features, kernels) + bias + connection @ student`.

    And that of `later = later_connection @ later_student`, if there is one.
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
    outputs = GROUPS * out_channels
    if IS_CONNECTED:
        total = add_product(
            total,
            connection,
            outputs,
            1,
            student + sample * outputs * places,
            places,
            1,
            absolute,
            (group + 1) * out_channels,
            outputs,
            place,
            places,
            SUM,
            OPERAND,
            PRECISION,
            BLOCK_INNER,
        )
    if HAS_BIAS:
        shift = tl.load(bias + sample * outputs + absolute, mask=out < out_channels, other=0.0)
        total += shift[:, None].to(SUM)
    at = (sample * outputs + absolute)[:, None] * places + place[None, :]
    is_inside = (out < out_channels)[:, None] & (place < places)[None, :]
    tl.store(output + at, total.to(output.dtype.element_ty), mask=is_inside)
    if IS_LATER:
        total = add_product(
            tl.zeros((BLOCK_OUT, BLOCK_PLACES), SUM),
            later_connection,
            outputs,
            1,
            later_student + sample * outputs * places,
            places,
            1,
            absolute,
            (group + 1) * out_channels,
            outputs,
            place,
            places,
            SUM,
            OPERAND,
            PRECISION,
            BLOCK_INNER,
        )
        tl.store(later + at, total.to(later.dtype.element_ty), mask=is_inside)
