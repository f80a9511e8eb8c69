"""Triton's side of the mixing of kernels: the router's two layers, softmax and the mixture, and their gradients.

Sums are float32, of float64 float64, and products are not rounded to TF32: the gradient of a router is a small
difference of large numbers.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _rows(matrix, width, row, rows, column, is_column, SUM: tl.constexpr):
    """Some rows and columns of a matrix of so many rows."""
    at = row.to(tl.int64)[:, None] * width + column[None, :]
    return tl.load(matrix + at, mask=(row < rows)[:, None] & is_column[None, :], other=0.0).to(SUM)


@triton.jit(do_not_specialize=["samples"])  # so that what was checked is what any batch is computed by
def mix(
    pooled,
    reduce_weight,
    reduce_bias,
    expand_weight,
    expand_bias,
    temperature,
    weight,
    kernels,
    mixing,
    hidden,
    samples,
    channels,
    hidden_units,
    kernel_count,
    columns,
    GAIN: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK_SAMPLES: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
    BLOCK_KERNELS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Write some samples' hidden units, `gain * softmax(scores / temperature)`, and so mixed rows of `weight`.

    Each program has every so manieth block of columns, and makes the mixing weights for them anew.
    Programs: (blocks of samples, at most the blocks of columns).
    """
    sample = tl.program_id(0) * BLOCK_SAMPLES + tl.arange(0, BLOCK_SAMPLES)
    kernel = tl.arange(0, BLOCK_KERNELS)
    is_sample = (sample < samples)[:, None]
    is_kernel = kernel < kernel_count
    is_first = tl.program_id(1) == 0
    scores = tl.zeros((BLOCK_SAMPLES, BLOCK_KERNELS), SUM)
    for first in range(0, hidden_units, BLOCK_HIDDEN):
        unit = first + tl.arange(0, BLOCK_HIDDEN)
        is_unit = unit < hidden_units
        units = tl.zeros((BLOCK_SAMPLES, BLOCK_HIDDEN), SUM)
        for start in range(0, channels, BLOCK_CHANNELS):
            channel = start + tl.arange(0, BLOCK_CHANNELS)
            means = _rows(pooled, channels, sample, samples, channel, channel < channels, SUM)
            reduce = _rows(reduce_weight, channels, unit, hidden_units, channel, channel < channels, SUM)
            units = tl.dot(means, tl.trans(reduce), units, input_precision="ieee", out_dtype=SUM)
        units += tl.load(reduce_bias + unit, mask=is_unit, other=0.0).to(SUM)[None, :]
        units = tl.maximum(units, 0.0)
        at = sample[:, None] * hidden_units + unit[None, :]
        tl.store(hidden + at, units, mask=is_sample & is_unit[None, :] & is_first)
        expand = _rows(expand_weight, hidden_units, kernel, kernel_count, unit, is_unit, SUM)
        scores = tl.dot(units, tl.trans(expand), scores, input_precision="ieee", out_dtype=SUM)
    scores += tl.load(expand_bias + kernel, mask=is_kernel, other=0.0).to(SUM)[None, :]
    scores = tl.where(is_kernel[None, :], scores / tl.load(temperature).to(SUM), float("-inf"))
    shares = tl.exp(scores - tl.max(scores, 1)[:, None])
    shares = GAIN * (shares / tl.sum(shares, 1)[:, None])
    at = sample[:, None] * kernel_count + kernel[None, :]
    tl.store(mixing + at, shares, mask=is_sample & is_kernel[None, :] & is_first)
    for start in range(tl.program_id(1) * BLOCK_COLUMNS, columns, tl.num_programs(1) * BLOCK_COLUMNS):
        column = start + tl.arange(0, BLOCK_COLUMNS)
        of_kernels = _rows(weight, columns, kernel, kernel_count, column, column < columns, SUM)
        mixture = tl.dot(shares, of_kernels, input_precision="ieee", out_dtype=SUM)
        tl.store(
            kernels + sample.to(tl.int64)[:, None] * columns + column[None, :],
            mixture.to(kernels.dtype.element_ty),
            mask=is_sample & (column < columns)[None, :],
        )


@triton.jit(do_not_specialize=["samples"])
def differentiate_mixing(
    gradient,
    mixing,
    weight,
    weight_gradient,
    sums,
    parts,
    samples,
    kernel_count,
    columns,
    others,
    part_count,
    SUM: tl.constexpr,
    BLOCK_SAMPLES: tl.constexpr,
    BLOCK_KERNELS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Write gradients of what was mixed, and of the mixing weights in parts, of some columns each, that add up.

    Rows of `gradient` are those of the mixtures, and behind them `others`, whose sums over the samples are written.
    Programs: (blocks of columns + blocks of others + parts x blocks of samples,).
    """
    kernel = tl.arange(0, BLOCK_KERNELS)
    is_kernel = kernel < kernel_count
    width = columns + others
    own_blocks = tl.cdiv(columns, BLOCK_COLUMNS)
    block = tl.program_id(0)
    number = block - own_blocks - tl.cdiv(others, BLOCK_COLUMNS)
    if number >= 0:
        part = number % part_count
        of_part = number // part_count * BLOCK_SAMPLES + tl.arange(0, BLOCK_SAMPLES)
        product = tl.zeros((BLOCK_SAMPLES, BLOCK_KERNELS), SUM)
        for of_columns in range(part, own_blocks, part_count):
            index = of_columns * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
            received = _rows(gradient, width, of_part, samples, index, index < columns, SUM)
            of_kernels = _rows(weight, columns, kernel, kernel_count, index, index < columns, SUM)
            product = tl.dot(received, tl.trans(of_kernels), product, input_precision="ieee", out_dtype=SUM)
        place = (part * samples + of_part)[:, None] * kernel_count + kernel[None, :]
        tl.store(parts + place, product, mask=(of_part < samples)[:, None] & is_kernel[None, :])
        return
    is_other = block >= own_blocks
    column = block * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    column = tl.where(is_other, column - own_blocks * BLOCK_COLUMNS + columns, column)
    is_column = column < tl.where(is_other, width, columns)
    total = tl.zeros((BLOCK_KERNELS, BLOCK_COLUMNS), SUM)
    for first in range(0, samples, BLOCK_SAMPLES):
        sample = first + tl.arange(0, BLOCK_SAMPLES)
        seen = _rows(gradient, width, sample, samples, column, is_column, SUM)
        shares = _rows(mixing, kernel_count, sample, samples, kernel, is_kernel, SUM)
        shares = tl.where(is_other, 1.0, shares)
        total = tl.dot(tl.trans(shares), seen, total, input_precision="ieee", out_dtype=SUM)
    at = kernel.to(tl.int64)[:, None] * columns + column[None, :]
    tl.store(weight_gradient + at, total, mask=is_kernel[:, None] & is_column[None, :] & (block < own_blocks))
    at = tl.zeros_like(kernel)[:, None] + column[None, :] - columns
    tl.store(sums + at, total, mask=(kernel == 0)[:, None] & is_column[None, :] & is_other)


@triton.jit
def _scores_gradient(
    parts,
    mixing,
    temperature,
    sample,
    kernel,
    samples,
    kernel_count,
    part_count,
    GAIN: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
):
    """Gradient of some samples' scores, (samples, kernels)."""
    shares = _rows(mixing, kernel_count, sample, samples, kernel, kernel < kernel_count, SUM)
    received = tl.zeros_like(shares)
    at = sample[:, None] * kernel_count + kernel[None, :]
    is_inside = (sample < samples)[:, None] & (kernel < kernel_count)[None, :]
    for first in range(0, part_count, BLOCK_PARTS):
        part = (first + tl.arange(0, BLOCK_PARTS))[:, None, None]
        of_parts = tl.load(
            parts + part * samples * kernel_count + at[None, :, :],
            mask=(part < part_count) & is_inside[None, :, :],
            other=0.0,
        )
        received += tl.sum(of_parts.to(SUM), 0)
    # what was saved are the shares times the gain
    centred = received - tl.sum(shares * received, 1)[:, None] / GAIN
    return shares * centred / tl.load(temperature).to(SUM)


@triton.jit
def _hidden_gradient(
    scores_gradient,
    hidden,
    expand_weight,
    sample,
    kernel,
    unit,
    samples,
    kernel_count,
    hidden_units,
    SUM: tl.constexpr,
):
    """Gradient of some of the hidden units of some samples before the ReLU, (samples, units), and the units."""
    weight = _rows(expand_weight, hidden_units, kernel, kernel_count, unit, unit < hidden_units, SUM)
    units = _rows(hidden, hidden_units, sample, samples, unit, unit < hidden_units, SUM)
    product = tl.dot(scores_gradient, weight, input_precision="ieee", out_dtype=SUM)
    return tl.where(units > 0, product, 0.0), units


@triton.jit(do_not_specialize=["samples"])  # so that what was checked is what any batch is computed by
def differentiate_route(
    parts,
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
    part_count,
    GAIN: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK_SAMPLES: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
    BLOCK_KERNELS: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
):
    """Write the router's gradients: those of a block of channels, and in the first program all others.

    Those of the mixing weights come in parts. Everything but the large factors is made anew in each program.
    Programs: (blocks of channels,).
    """
    channel = tl.program_id(0) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    kernel = tl.arange(0, BLOCK_KERNELS)
    for start in range(0, samples, BLOCK_SAMPLES):
        sample = start + tl.arange(0, BLOCK_SAMPLES)
        scores = _scores_gradient(
            parts, mixing, temperature, sample, kernel, samples, kernel_count, part_count, GAIN, SUM, BLOCK_PARTS
        )
        total = tl.zeros((BLOCK_SAMPLES, BLOCK_CHANNELS), SUM)
        for first in range(0, hidden_units, BLOCK_HIDDEN):
            unit = first + tl.arange(0, BLOCK_HIDDEN)
            units_gradient, _ = _hidden_gradient(
                scores, hidden, expand_weight, sample, kernel, unit, samples, kernel_count, hidden_units, SUM
            )
            weight = _rows(reduce_weight, channels, unit, hidden_units, channel, channel < channels, SUM)
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
                parts, mixing, temperature, sample, kernel, samples, kernel_count, part_count, GAIN, SUM, BLOCK_PARTS
            )
            units_gradient, units = _hidden_gradient(
                scores, hidden, expand_weight, sample, kernel, unit, samples, kernel_count, hidden_units, SUM
            )
            means = _rows(pooled, channels, sample, samples, channel, channel < channels, SUM)
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
