"""Triton's side of a dynamic convolution, backward: of features and kernels, and of the connections beside it.

What `products` says holds here too; the connections, up to two, are told apart by nothing but their tensors.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ecd_deploy.distill.convolution.triton.products import (
    add_product,
    is_within,
    load_block,
    load_places,
    store_block,
)


@triton.jit
def differentiate_features(
    gradient,
    kernels,
    pooled_gradient,
    received,
    second_received,
    connection,
    second_connection,
    features_gradient,
    student_gradient,
    second_student_gradient,
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
    SUM: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_PLACES: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
):
    """Write a block (channels of a group, places) of the features' gradient, that of their means included.

    Or of a student's feature's, `transpose(connection) @ received`. `pooled_gradient` is (samples, channels).
    Programs: (samples, blocks of places of each gradient, groups x blocks of channels).
    """
    sample = tl.program_id(0).to(tl.int64)
    own_blocks = tl.cdiv(height * width, BLOCK_PLACES)
    block = tl.program_id(1) - own_blocks
    if block >= 0:
        out_places = out_height * out_width
        out_blocks = tl.cdiv(out_places, BLOCK_PLACES)
        if block >= out_blocks:
            block -= out_blocks
            received = second_received
            connection = second_connection
            student_gradient = second_student_gradient
        outputs = GROUPS * out_channels
        student = tl.program_id(2) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
        out_place = block * BLOCK_PLACES + tl.arange(0, BLOCK_PLACES)
        of_sample = sample * outputs * out_places
        total = tl.zeros((BLOCK_CHANNELS, BLOCK_PLACES), SUM)
        total = add_product(
            total,
            connection,
            received + of_sample,
            student,
            outputs,
            outputs,
            out_place,
            out_places,
            OPERAND,
            PRECISION,
            BLOCK_INNER,
            LEFT_IS_TRANSPOSED=True,
        )
        store_block(student_gradient + of_sample, total, student, outputs, out_place, out_places)
        return
    place = tl.program_id(1) * BLOCK_PLACES + tl.arange(0, BLOCK_PLACES)
    blocks = tl.cdiv(channels, BLOCK_CHANNELS)
    group = tl.program_id(2) // blocks
    if group >= GROUPS:
        return
    channel = (tl.program_id(2) % blocks) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    places = height * width
    taps = KERNEL[0] * KERNEL[1]
    inner = out_channels * taps
    gradient += (sample * GROUPS + group) * out_channels * out_height * out_width
    kernels += (sample * GROUPS + group) * out_channels * channels * taps
    bottom = place // width + PADDING[0]
    right = place % width + PADDING[1]
    total = tl.zeros((BLOCK_CHANNELS, BLOCK_PLACES), SUM)
    for start in range(0, inner, BLOCK_INNER):
        index = start + tl.arange(0, BLOCK_INNER)
        out = index // taps
        tap = index % taps
        row = bottom[None, :] - (tap // KERNEL[1] * DILATION[0])[:, None]
        column = right[None, :] - (tap % KERNEL[1] * DILATION[1])[:, None]
        # of what is negative the quotient and the rest are not used
        is_inside = (row >= 0) & (column >= 0) & (row % STRIDE[0] == 0) & (column % STRIDE[1] == 0)
        row = row // STRIDE[0]
        column = column // STRIDE[1]
        is_inside &= (row < out_height) & (column < out_width) & is_within(index, inner, place, places)
        seen = tl.load(gradient + (out[:, None] * out_height + row) * out_width + column, mask=is_inside, other=0.0)
        kernel = tl.load(
            kernels + (out[None, :] * channels + channel[:, None]) * taps + tap[None, :],
            mask=is_within(channel, channels, index, inner),
            other=0.0,
        )
        total = tl.dot(kernel.to(OPERAND), seen.to(OPERAND), total, input_precision=PRECISION, out_dtype=SUM)
    first = (sample * GROUPS + group) * channels
    of_pooled = tl.load(pooled_gradient + first + channel, mask=channel < channels, other=0.0).to(SUM)
    total += (of_pooled / places)[:, None]
    store_block(features_gradient + first * places, total, channel, channels, place, places)


@triton.jit
def differentiate_weights(
    gradient,
    features,
    received,
    second_received,
    student,
    second_student,
    weights_gradient,
    columns,
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
    SUM: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_PLACES: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
):
    """Write a block (outputs of a group, inputs x taps) of the gradient of each sample's kernel.

    Or of its part of a connection's, `received @ transpose(student)`: in a row of `columns` they follow each other.
    Programs: (samples, blocks of inputs x taps of each, groups x blocks of outputs).
    """
    sample = tl.program_id(0).to(tl.int64)
    outputs = GROUPS * out_channels
    weights_gradient += sample * columns
    own_blocks = tl.cdiv(channels * KERNEL[0] * KERNEL[1], BLOCK_INNER)
    block = tl.program_id(1) - own_blocks
    if block >= 0:
        weights_gradient += outputs * channels * KERNEL[0] * KERNEL[1]
        out_places = out_height * out_width
        out_blocks = tl.cdiv(outputs, BLOCK_INNER)
        if block >= out_blocks:
            block -= out_blocks
            received = second_received
            student = second_student
            weights_gradient += outputs * outputs
        output = tl.program_id(2) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
        column = block * BLOCK_INNER + tl.arange(0, BLOCK_INNER)
        of_sample = sample * outputs * out_places
        total = tl.zeros((BLOCK_OUT, BLOCK_INNER), SUM)
        total = add_product(
            total,
            received + of_sample,
            student + of_sample,
            output,
            outputs,
            out_places,
            column,
            outputs,
            OPERAND,
            PRECISION,
            BLOCK_PLACES,
            RIGHT_IS_TRANSPOSED=True,
        )
        store_block(weights_gradient, total, output, outputs, column, outputs)
        return
    blocks = tl.cdiv(out_channels, BLOCK_OUT)
    group = tl.program_id(2) // blocks
    out = (tl.program_id(2) % blocks) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    places = out_height * out_width
    taps = KERNEL[0] * KERNEL[1]
    inner = channels * taps
    index = tl.program_id(1) * BLOCK_INNER + tl.arange(0, BLOCK_INNER)
    tap = index % taps
    down = tap // KERNEL[1] * DILATION[0] - PADDING[0]
    across = tap % KERNEL[1] * DILATION[1] - PADDING[1]
    gradient += (sample * GROUPS + group) * out_channels * places
    features += (sample * GROUPS + group) * channels * height * width
    total = tl.zeros((BLOCK_OUT, BLOCK_INNER), SUM)
    for start in range(0, places, BLOCK_PLACES):
        place = start + tl.arange(0, BLOCK_PLACES)
        row = (place // out_width * STRIDE[0])[:, None] + down[None, :]
        column = (place % out_width * STRIDE[1])[:, None] + across[None, :]
        is_wanted = is_within(place, places, index, inner)
        seen = load_places(features, (index // taps)[None, :], row, height, column, width, is_wanted)
        of_outputs = load_block(gradient, out, out_channels, place, places)
        total = tl.dot(of_outputs.to(OPERAND), seen.to(OPERAND), total, input_precision=PRECISION, out_dtype=SUM)
    weights_gradient += group * out_channels * inner
    store_block(weights_gradient, total, out, out_channels, index, inner)
