from __future__ import annotations

import pytest

from benchmarks.gpu.schedule import ArmCost, choose_schedule, longest_epochs

STUDENT = ArmCost(arm="student", fixed_seconds=1, epoch_seconds=0.2)
ECD = ArmCost(arm="ecd", fixed_seconds=2, epoch_seconds=0.6)
STAR = ArmCost(arm="ecd_star", fixed_seconds=2, epoch_seconds=0.6)


def test_as_many_epochs_are_trained_as_fit() -> None:
    # 6 x (3 s + epochs x 0.8 s x 1.1) within 300 s is 53.4 epochs, rounded down to a multiple of four
    assert longest_epochs((STUDENT, ECD), seeds=6, seconds=300, most=200) == 52
    assert longest_epochs((STUDENT, ECD), seeds=6, seconds=3000, most=200) == 200
    assert longest_epochs((STUDENT, ECD), seeds=6, seconds=17, most=200) == 0


@pytest.mark.parametrize(("seconds", "arms"), [(300, 2), (430, 3)])
def test_the_third_arm_is_trained_only_where_every_pair_still_fits(seconds: float, arms: int) -> None:
    schedule = choose_schedule((STUDENT, ECD, STAR), seeds=6, seconds=seconds, least=40, most=200, least_with_third=40)
    assert schedule.arms == ("student", "ecd", "ecd_star")[:arms]
    assert schedule.epochs >= 40
    assert schedule.expected_seconds <= seconds


def test_the_milestones_are_those_of_the_paper_scaled() -> None:
    paper = choose_schedule((STUDENT, ECD), seeds=3, seconds=1e6, least=4, most=200, least_with_third=200)
    assert (paper.epochs, paper.milestones) == (200, (100, 150))
    short = choose_schedule((STUDENT, ECD), seeds=6, seconds=300, least=40, most=200, least_with_third=40)
    assert (short.epochs, short.milestones) == (52, (26, 39))


def test_no_training_is_shorter_than_the_least_even_if_it_does_not_fit() -> None:
    schedule = choose_schedule((STUDENT, ECD), seeds=6, seconds=60, least=40, most=200, least_with_third=40)
    assert schedule.epochs == 40
    assert schedule.expected_seconds > 60
