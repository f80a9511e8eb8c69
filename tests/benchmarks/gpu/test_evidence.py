from __future__ import annotations

import pytest

from benchmarks.gpu.evidence import ArmResult, SeedResult, paired_differences

ARMS = ("student", "ecd")


def _seed(seed: int, student: float, ecd: float) -> SeedResult:
    arms = tuple(
        ArmResult(
            arm=arm,
            test_top1=top1,
            teacher_top1=None,
            ensemble_top1=None,
            student_loss=(),
            epoch_seconds=(),
            seconds=1,
        )
        for arm, top1 in zip(ARMS, (student, ecd), strict=True)
    )
    return SeedResult(seed=seed, arms=arms)


def test_differences_are_paired_by_seed() -> None:
    seeds = [_seed(0, 30.0, 31.0), _seed(1, 40.0, 42.0), _seed(2, 35.0, 38.0)]
    (found,) = paired_differences(seeds, ARMS)
    assert found.arm == "ecd"
    assert found.by_seed == (1.0, 2.0, 3.0)
    assert found.mean == 2.0
    # t(2) at 97.5 % is 4.3027, the standard error is 1 / sqrt(3)
    assert found.interval == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)


def test_one_pair_has_a_difference_and_no_interval() -> None:
    (found,) = paired_differences([_seed(0, 30.0, 29.5)], ARMS)
    assert (found.by_seed, found.interval) == ((-0.5,), None)
