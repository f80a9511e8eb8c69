"""What the loss makes of unequal classes, against the papers' formulas, written out one class at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ecd_deploy.data import DataSplits, ImageFiles, ImageSet, Normalisation, check_classes, logit_offsets, loss_weights
from ecd_deploy.errors import RecipeError
from ecd_deploy.recipe.train import TrainConfig
from tests.small import present

SIZES = (60, 30, 9, 1)
CLASSES = ("cat", "dog", "fox", "owl")


def data(sizes: tuple[int, ...] = SIZES) -> DataSplits:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    images = ImageSet(np.zeros((len(labels), 1, 4, 4), dtype=np.uint8), labels)
    return DataSplits(images, None, images, CLASSES[: len(sizes)], Normalisation((0.5,), (0.5,)), digest="")


def config(**fields: Any) -> TrainConfig:
    return TrainConfig.model_validate(fields)


def weights(**fields: Any) -> list[float]:
    return list(map(float, present(loss_weights(config(**fields), data()))))


def test_nothing_is_weighed_or_shifted_by_default() -> None:
    assert loss_weights(config(), data()) is None
    assert logit_offsets(config(), data()) is None


def test_balanced_weights_are_the_inverse_frequencies() -> None:
    expected = [100 / (4 * size) for size in SIZES]  # as scikit-learn's "balanced" has them
    assert weights(class_weights="balanced") == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("beta", [None, 0.9, 0.9999])
def test_effective_numbers_are_sums_of_powers_of_beta(beta: float | None) -> None:
    power = 0.999 if beta is None else beta
    effective = [sum(power**k for k in range(size)) for size in SIZES]  # (1 - beta^n) / (1 - beta)
    mean = sum(size / number for size, number in zip(SIZES, effective, strict=True)) / 100
    expected = [1 / (number * mean) for number in effective]
    assert weights(class_weights="effective", effective_beta=beta) == pytest.approx(expected, rel=1e-9)


def test_a_table_gives_ratios_and_one_to_those_it_leaves_out() -> None:
    found = weights(class_weights={"dog": 2.0, "owl": 40.0})
    assert [weight / found[0] for weight in found] == pytest.approx([1, 2, 1, 40])
    assert found == pytest.approx(weights(class_weights={"cat": 5, "dog": 10, "fox": 5, "owl": 200}))


@pytest.mark.parametrize(
    ("fields", "drawn"),
    [
        ({"class_weights": "balanced"}, SIZES),
        ({"class_weights": "effective"}, SIZES),
        ({"class_weights": {"owl": 40.0}}, SIZES),
        ({"class_weights": {"owl": 40.0}, "sampling": "balanced"}, (25, 25, 25, 25)),
    ],
)
def test_the_mean_weight_of_the_images_that_are_drawn_is_one(fields: dict[str, Any], drawn: tuple[int, ...]) -> None:
    total = sum(weight * count for weight, count in zip(weights(**fields), drawn, strict=True))
    assert total == pytest.approx(100)


@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_logits_are_shifted_by_the_logarithms_of_the_shares(tau: float) -> None:
    found = present(logit_offsets(config(logit_adjustment=tau), data())).tolist()
    assert found == pytest.approx([tau * math.log(size / 100) for size in SIZES], rel=1e-12)


def test_files_that_are_trained_on_are_counted_and_not_their_sample(tmp_path: Any) -> None:
    labels = np.repeat(np.arange(4), (10, 10, 10, 70))
    files = ImageFiles(tmp_path, tuple(tmp_path / str(number) for number in range(100)), labels, 1)
    found = present(loss_weights(config(class_weights="balanced"), replace(data(), train_files=files)))
    assert found.tolist() == pytest.approx([2.5, 2.5, 2.5, 100 / 280])


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"class_weights": "balanced"}, r"train\.class_weights 'balanced'"),
        ({"class_weights": "effective"}, r"train\.class_weights 'effective'"),
        ({"sampling": "balanced"}, r"train\.sampling 'balanced'"),
        ({"logit_adjustment": 1.0}, r"train\.logit_adjustment 1\.0"),
    ],
)
def test_a_class_without_images_is_named(fields: dict[str, Any], key: str) -> None:
    with pytest.raises(RecipeError, match=f"{key} needs training images of each class, and there are none of dog, owl"):
        check_classes(config(**fields), data((5, 0, 5, 0)))
    check_classes(config(class_weights={"dog": 2.0}), data((5, 0, 5, 0)))


def test_a_class_that_is_not_there_is_named_with_the_choices() -> None:
    told = r"""train\.class_weights\."dgo": there is no such class \(did you mean 'dog'\?\); there are cat, dog"""
    with pytest.raises(RecipeError, match=told):
        loss_weights(config(class_weights={"dgo": 2.0}), data())
