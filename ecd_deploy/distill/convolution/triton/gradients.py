"""Triton's side of a dynamic convolution, backward: of features and kernels, and of the connections beside it.

What `products` says holds here too; the connections, up to two, are told apart by nothing but their tensors.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ecd_deploy.distill.convolution.triton.products import add_product


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
        product = add_product(
            tl.zeros((BLOCK_CHANNELS, BLOCK_PLACES), SUM),
            connection,
            1,
            outputs,
            received + sample * outputs * out_places,
            out_places,
            1,
            student,
            outputs,
            outputs,
            out_place,
            out_places,
            SUM,
            OPERAND,
            PRECISION,
            BLOCK_INNER,
        )
        tl.store(
            student_gradient + (sample * outputs + student)[:, None] * out_places + out_place[None, :],
            product.to(student_gradient.dtype.element_ty),
            mask=(student < outputs)[:, None] & (out_place < out_places)[None, :],
        )
        return
    place = tl.program_id(1) * BLOCK_PLACES + tl.arange(0, BLOCK_PLACES)
    blocks = tl.cdiv(channels, BLOCK_CHANNELS)
    group = tl.program_id(2) // blocks
    if group >= GROUPS:
        return
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

    Or of its part of a connection's, `received @ transpose(student)`: in a row of `columns` they follow each other.
    Programs: (samples, blocks of inputs x taps of each, groups x blocks of outputs).
    """
    sample = tl.program_id(0).to(tl.int64)
    outputs = GROUPS * out_channels
    weights_gradient += sample * columns
    own_blocks = tl.cdiv(channels * KERNEL_H * KERNEL_W, BLOCK_INNER)
    block = tl.program_id(1) - own_blocks
    if block >= 0:
        weights_gradient += outputs * channels * KERNEL_H * KERNEL_W
        out_places = out_height * out_width
        out_blocks = tl.cdiv(outputs, BLOCK_INNER)
        if block >= out_blocks:
            block -= out_blocks
            received = second_received
            student = second_student
            weights_gradient += outputs * outputs
        output = tl.program_id(2) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
        column = block * BLOCK_INNER + tl.arange(0, BLOCK_INNER)
        product = add_product(
            tl.zeros((BLOCK_OUT, BLOCK_INNER), SUM),
            received + sample * outputs * out_places,
            out_places,
            1,
            student + sample * outputs * out_places,
            1,
            out_places,
            output,
            outputs,
            out_places,
            column,
            outputs,
            SUM,
            OPERAND,
            PRECISION,
            BLOCK_PLACES,
        )
        tl.store(
            weights_gradient + output[:, None] * outputs + column[None, :],
            product.to(weights_gradient.dtype.element_ty),
            mask=(output < outputs)[:, None] & (column < outputs)[None, :],
        )
        return
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
        of_outputs = tl.load(
            gradient + out[:, None] * places + place[None, :],
            mask=(out < out_channels)[:, None] & (place < places)[None, :],
            other=0.0,
        )
        total = tl.dot(of_outputs.to(OPERAND), seen.to(OPERAND), total, input_precision=PRECISION, out_dtype=SUM)
    tl.store(
        weights_gradient + (group * out_channels + out)[:, None] * inner + index[None, :],
        total.to(weights_gradient.dtype.element_ty),
        mask=(out < out_channels)[:, None] & (index < inner)[None, :],
    )
