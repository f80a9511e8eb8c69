from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest, kstest
from torch.nn import functional

from ecd_deploy.data.augmentation.mixing import Mixing, draw_mixing, mix
from ecd_deploy.distill import TrainingOutputs
from ecd_deploy.distill.objective import Objective

CLASSES, SIZE = 5, (6, 8)


def mix_by_hand(
    images: NDArray[np.float32], labels: NDArray[np.int64], mixing: Mixing
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixel by pixel, from the papers' formulas."""
    mixed = np.zeros(images.shape)
    targets = np.zeros((len(images), CLASSES))
    for number, image in enumerate(images):
        partner = number - 1 if number else len(images) - 1
        taken = 0
        for row in range(SIZE[0]):
            for column in range(SIZE[1]):
                boxes = mixing.boxes
                inside = (
                    boxes.top[number] <= row < boxes.bottom[number]
                    and boxes.left[number] <= column < boxes.right[number]
                )
                share = 0.0 if inside else mixing.blends[number]
                mixed[number, :, row, column] = (
                    share * image[:, row, column] + (1 - share) * images[partner, :, row, column]
                )
                taken += inside
        is_cut = mixing.blends[number] == 1
        own = 1 - taken / (SIZE[0] * SIZE[1]) if is_cut else mixing.blends[number]
        targets[number, labels[number]] += own
        targets[number, labels[partner]] += 1 - own
    return mixed, targets


def cross_entropy_by_hand(
    logits: NDArray[np.float32], targets: NDArray[np.float64], smoothing: float, weights: NDArray[np.float32]
) -> float:
    smooth = targets * (1 - smoothing) + smoothing / CLASSES
    wide = logits.astype(np.float64)
    log_shares = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return float(-(weights * smooth * log_shares).sum(axis=1).mean())


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, None), (None, 1.0), (0.4, 1.0)])
def test_images_targets_and_both_losses_equal_those_by_hand(mixup: float | None, cutmix: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(24, 3, *SIZE, generator=generator)
    labels = torch.randint(CLASSES, (24,), generator=generator)
    mixing = draw_mixing(mixup, cutmix, SIZE, np.arange(24), seed=1, epoch=2)
    assert {*np.unique(mixing.blends == 1)} == {*([False] if mixup else []), *([True] if cutmix else [])}
    found, shares = mix(images, labels, CLASSES, mixing)
    expected, targets = mix_by_hand(images.numpy(), labels.numpy(), mixing)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(shares, targets, atol=1e-6)

    weights, offsets = torch.tensor([1.0, 2.0, 0.5, 4.0, 1.0]), torch.tensor([0.0, -1.0, 0.5, 0.0, 2.0])
    student, teacher = (torch.randn(24, CLASSES, generator=generator) for _ in range(2))
    total = Objective(label_smoothing=0.1)(TrainingOutputs(student, teacher), shares).total
    even = np.ones(CLASSES, dtype=np.float32)
    by_hand = sum(cross_entropy_by_hand(logits.numpy(), targets, 0.1, even) for logits in (student, teacher))
    assert float(total) == pytest.approx(by_hand, abs=1e-5)
    unequal = Objective(class_weights=weights, logit_offsets=offsets)(TrainingOutputs(student), shares).total
    by_hand = cross_entropy_by_hand((student + offsets).numpy(), targets, 0.0, weights.numpy())
    assert float(unequal) == pytest.approx(by_hand, abs=1e-5)


def test_whole_shares_are_labels() -> None:
    outputs, labels = TrainingOutputs(torch.randn(6, CLASSES)), torch.arange(6) % CLASSES
    soft = Objective()(outputs, functional.one_hot(labels, CLASSES).float()).total
    assert float(soft) == pytest.approx(float(Objective()(outputs, labels).total), abs=1e-6)


def test_shares_are_drawn_from_the_beta_distribution() -> None:
    draws = np.arange(4000)
    blended = draw_mixing(0.3, None, (100, 100), draws, seed=0, epoch=1)
    assert kstest(blended.shares, "beta", args=(0.3, 0.3)).pvalue > 1e-4
    assert blended.boxes.area().max() == 0
    # small boxes, which no border cuts, show the share that was drawn
    cut = draw_mixing(None, 1.0, (1000, 1000), draws, seed=0, epoch=1)
    within = (cut.boxes.top > 0) & (cut.boxes.bottom < 1000) & (cut.boxes.left > 0) & (cut.boxes.right < 1000)
    small = cut.boxes.area() < 0.09e6
    assert binomtest(int((within & small).sum()), len(draws), _expected_small()).pvalue > 1e-4
    both = draw_mixing(0.3, 1.0, (100, 100), draws, seed=0, epoch=1)
    assert binomtest(int((both.blends == 1).sum()), len(draws), 0.5).pvalue > 1e-4


def _expected_small() -> float:
    """Chance that a box of an area a, even on 0 to 1, is below .09 and touches no border: (1 - sqrt(a))^2 over a."""
    areas = (np.arange(9000) + 0.5) / 1e5
    return float(((1 - np.sqrt(areas)) ** 2).sum() / 1e5)
