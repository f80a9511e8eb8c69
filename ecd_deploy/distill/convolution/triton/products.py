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
def is_within(row, rows, column, columns):
    """Which numbers of a block are of the matrix (rows, columns)."""
    return (row < rows)[:, None] & (column < columns)[None, :]


@triton.jit
def load_block(matrix, row, rows, column, columns, IS_TRANSPOSED: tl.constexpr = False):
    """A block of a matrix (rows, columns), which may lie transposed; 0 outside it."""
    down, across = (1, rows) if IS_TRANSPOSED else (columns, 1)
    at = matrix + row[:, None] * down + column[None, :] * across
    return tl.load(at, mask=is_within(row, rows, column, columns), other=0.0)


@triton.jit
def store_block(matrix, block, row, rows, column, columns):
    """Write a block of a matrix (rows, columns), in its dtype."""
    at = matrix + row[:, None] * columns + column[None, :]
    tl.store(at, block.to(matrix.dtype.element_ty), mask=is_within(row, rows, column, columns))


@triton.jit
def load_places(features, channel, row, height, column, width, is_wanted):
    """Features (channels, height, width) at places that may lie outside the image, where they are 0."""
    is_inside = (row >= 0) & (row < height) & (column >= 0) & (column < width) & is_wanted
    return tl.load(features + (channel * height + row) * width + column, mask=is_inside, other=0.0)


@triton.jit
def add_product(
    total,
    left,
    right,
    row,
    rows,
    inner,
    column,
    columns,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
    LEFT_IS_TRANSPOSED: tl.constexpr = False,
    RIGHT_IS_TRANSPOSED: tl.constexpr = False,
):
    """A block of `total + left @ right`, (rows, inner) times (inner, columns)."""
    for start in range(0, inner, BLOCK_INNER):
        index = start + tl.arange(0, BLOCK_INNER)
        first = load_block(left, row, rows, index, inner, LEFT_IS_TRANSPOSED).to(OPERAND)
        second = load_block(right, index, inner, column, columns, RIGHT_IS_TRANSPOSED).to(OPERAND)
        total = tl.dot(first, second, total, input_precision=PRECISION, out_dtype=total.dtype)
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
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
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
    taps = KERNEL[0] * KERNEL[1]
    inner = channels * taps
    features += (sample * GROUPS + group) * channels * height * width
    kernels += (sample * GROUPS + group) * out_channels * inner
    top = (place // out_width) * STRIDE[0] - PADDING[0]
    left = (place % out_width) * STRIDE[1] - PADDING[1]
    total = tl.zeros((BLOCK_OUT, BLOCK_PLACES), SUM)
    for start in range(0, inner, BLOCK_INNER):
        index = start + tl.arange(0, BLOCK_INNER)
        tap = index % taps
        row = top[None, :] + (tap // KERNEL[1] * DILATION[0])[:, None]
        column = left[None, :] + (tap % KERNEL[1] * DILATION[1])[:, None]
        is_wanted = is_within(index, inner, place, places)
        seen = load_places(features, (index // taps)[:, None], row, height, column, width, is_wanted)
        kernel = load_block(kernels, out, out_channels, index, inner)
        total = tl.dot(kernel.to(OPERAND), seen.to(OPERAND), total, input_precision=PRECISION, out_dtype=SUM)
    outputs = GROUPS * out_channels
    of_sample = sample * outputs * places
    out += group * out_channels
    end = (group + 1) * out_channels
    if IS_CONNECTED:
        student += of_sample
        total = add_product(
            total, connection, student, out, end, outputs, place, places, OPERAND, PRECISION, BLOCK_INNER
        )
    if HAS_BIAS:
        shift = tl.load(bias + sample * outputs + out, mask=out < end, other=0.0)
        total += shift[:, None].to(SUM)
    store_block(output + of_sample, total, out, end, place, places)
    if IS_LATER:
        later_student += of_sample
        total = tl.zeros((BLOCK_OUT, BLOCK_PLACES), SUM)
        total = add_product(
            total, later_connection, later_student, out, end, outputs, place, places, OPERAND, PRECISION, BLOCK_INNER
        )
        store_block(later + of_sample, total, out, end, place, places)
