from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare, kstest

from ecd_deploy.data.augmentation.rounds import Round, draw_rounds
from ecd_deploy.recipe.augment import AugmentConfig

SIZE = (32, 64)
DRAWS = np.arange(6000)
JITTER = AugmentConfig(brightness=0.4, contrast=0.3, saturation=0.2, hue=0.1)
LARGEST = {"Brightness": 0.4, "Contrast": 0.3, "Color": 0.2, "Hue": 0.1}


def rounds_of(config: AugmentConfig, *, seed: int = 0, epoch: int = 1) -> list[Round]:
    return list(draw_rounds(config, SIZE, DRAWS, seed=seed, epoch=epoch))


def uniform(names: np.ndarray, kinds: int) -> bool:
    found, counts = np.unique(names, return_counts=True)
    return len(found) == kinds and bool(chisquare(counts).pvalue > 1e-4)


def test_nothing_is_drawn_by_default() -> None:
    assert rounds_of(AugmentConfig()) == []


def test_randaugment_draws_operations_alike_and_signs_evenly() -> None:
    rounds = rounds_of(AugmentConfig(policy="randaugment", operations=3, magnitude=15))
    assert len(rounds) == 3
    for drawn in rounds:
        assert uniform(drawn.names, 14)
        shears = drawn.strengths[drawn.names == "ShearX"]
        assert np.allclose(np.abs(shears), 0.15)  # half of the range
        assert uniform(np.sign(shears), 2)
        assert np.allclose(np.abs(drawn.strengths[drawn.names == "TranslateX"]), 150 / 331 * 64 / 2)
        assert set(drawn.strengths[drawn.names == "Posterize"]) == {6.0}
    pairs = np.char.add(rounds[0].names, rounds[1].names)
    assert uniform(pairs, 14 * 14)


def test_trivialaugment_draws_one_operation_and_its_strength() -> None:
    (drawn,) = rounds_of(AugmentConfig(policy="trivialaugment"))
    assert uniform(drawn.names, 14)
    rotations = drawn.strengths[drawn.names == "Rotate"]
    assert np.abs(rotations).max() == 135
    assert uniform(np.abs(rotations).round(3), 31)


def test_rotation_is_even_between_both_ends() -> None:
    (drawn,) = rounds_of(AugmentConfig(rotation=30))
    assert set(drawn.names) == {"Rotate"}
    assert kstest(drawn.strengths, "uniform", args=(-30, 60)).pvalue > 1e-4


def test_colour_jitter_does_each_of_its_operations_once_in_any_order() -> None:
    rounds = rounds_of(JITTER)
    order = np.stack([drawn.names for drawn in rounds])
    assert (np.sort(order, axis=0) == np.array(sorted(LARGEST))[:, None]).all()
    assert uniform(np.array(["".join(column) for column in order.T]), 24)
    for drawn in rounds:
        for name, largest in LARGEST.items():
            strengths = drawn.strengths[drawn.names == name]
            assert kstest(strengths, "uniform", args=(-largest, 2 * largest)).pvalue > 1e-4


@pytest.mark.parametrize("config", [JITTER, AugmentConfig(policy="randaugment"), AugmentConfig(rotation=3)])
def test_draws_differ_by_epoch_and_seed_and_hang_on_nothing_else(config: AugmentConfig) -> None:
    for whole, part in zip(
        rounds_of(config), draw_rounds(config, SIZE, DRAWS[100:90:-1], seed=0, epoch=1), strict=True
    ):
        assert (whole.names[100:90:-1] == part.names).all()
        assert (whole.strengths[100:90:-1] == part.strengths).all()
    for other in (rounds_of(config, epoch=2), rounds_of(config, seed=1)):
        assert (rounds_of(config)[0].strengths != other[0].strengths).mean() > 0.3
