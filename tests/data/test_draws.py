from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare, kstest

from ecd_deploy.data.draws import Purpose, draw_below, draw_bits, stream_key

MASK = (1 << 64) - 1


def splitmix64(seed: int, count: int) -> list[int]:
    """The generator as published: a sequence, in Python's unbounded integers."""
    state, numbers = seed, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        mixed = state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
        numbers.append(mixed ^ (mixed >> 31))
    return numbers


def test_known_numbers_of_splitmix64() -> None:
    # the widely published first outputs for the seed 1234567
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [int(bits) & MASK for bits in draw_bits(1234567, torch.arange(4))] == published


@pytest.mark.parametrize("key", [0, 1, 2**63, 2**64 - 1])
def test_equals_the_published_sequence(key: int) -> None:
    assert [int(bits) & MASK for bits in draw_bits(key, torch.arange(200))] == splitmix64(key, 200)


def test_a_draw_depends_on_its_counter_alone() -> None:
    counters = torch.tensor([7, 0, 123456789, 7])
    together = draw_bits(5, counters)
    assert together.tolist() == [int(draw_bits(5, counter)) for counter in counters]
    assert draw_bits(5, counters.view(2, 2)).tolist() == together.view(2, 2).tolist()


def test_keys_differ_by_each_part() -> None:
    keys = {stream_key(seed, epoch, purpose) for seed in range(20) for epoch in range(20) for purpose in Purpose}
    assert len(keys) == 400 * len(Purpose)
    assert stream_key(0, 1, 2) != stream_key(0, 2, 1)


@pytest.mark.parametrize("limit", [2, 9, 1000])
def test_draws_below_a_limit_are_uniform(limit: int) -> None:
    draws = draw_below(stream_key(0, 1, Purpose.FLIP), torch.arange(100_000), limit)
    assert int(draws.min()) >= 0
    assert int(draws.max()) < limit
    assert chisquare(torch.bincount(draws, minlength=limit).numpy()).pvalue > 1e-3


def test_draws_of_one_sample_over_the_epochs_are_uniform() -> None:
    keys = [stream_key(3, epoch, Purpose.CROP_TOP) for epoch in range(20_000)]
    counts = torch.bincount(torch.stack([draw_below(key, torch.tensor(11), 9) for key in keys]), minlength=9)
    assert chisquare(counts.numpy()).pvalue > 1e-3


def test_streams_of_two_purposes_are_not_related() -> None:
    counters = torch.arange(50_000)
    tops, lefts = (
        draw_below(stream_key(0, 1, purpose), counters, 9) for purpose in (Purpose.CROP_TOP, Purpose.CROP_LEFT)
    )
    assert chisquare(torch.bincount(tops * 9 + lefts, minlength=81).numpy()).pvalue > 1e-3


def test_bits_are_uniform_over_their_whole_range() -> None:
    bits = draw_bits(stream_key(9), torch.arange(50_000)).double() / 2.0**64 + 0.5
    assert kstest(bits.numpy(), "uniform").pvalue > 1e-3
