"""Each image against torchvision's own function for it alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import InterpolationMode, v2

from ecd_deploy.compat.torchvision import OperationRange, policy_operations
from ecd_deploy.data.augmentation.operations import apply_operations, as_bytes

HEIGHT, WIDTH, COUNT = 20, 24, 24
POLICIES = (v2.RandAugment, v2.TrivialAugmentWide)
Policy = type[v2.RandAugment | v2.TrivialAugmentWide]


def pictures(channels: int) -> Tensor:
    """Smooth ones, whose pixels do not hang on the last bit of a coordinate: uint8 (n, C, H, W)."""
    coarse = torch.rand(COUNT, channels, 7, 7, generator=torch.Generator().manual_seed(0))
    return functional.interpolate(coarse * 255, size=(HEIGHT, WIDTH), mode="bilinear").to(torch.uint8)


def strengths_of(operation: OperationRange) -> NDArray[np.float64]:
    draw = np.random.default_rng(0)
    signs = draw.choice([-1, 1], COUNT) if operation.is_signed else 1
    strengths: NDArray[np.float64] = operation.strengths[draw.integers(31, size=COUNT)] * signs
    return strengths


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", POLICIES)
def test_every_operation_is_torchvisions_of_each_image_alone(kind: Policy, channels: int) -> None:
    policy = kind(interpolation=InterpolationMode.BILINEAR)
    images = pictures(channels)
    for operation in policy_operations(kind, HEIGHT, WIDTH):
        strengths = strengths_of(operation)
        found = apply_operations(images.float(), np.full(COUNT, operation.name), strengths)
        for image, strength, own in zip(images, strengths.tolist(), found, strict=True):
            expected = policy._apply_image_or_video_transform(
                image, operation.name, strength, InterpolationMode.BILINEAR, {Tensor: None}
            )
            differs = (own - expected).abs()
            assert differs.max() <= 1, operation.name
            # where rounding had to choose
            assert (differs > 0).float().mean() < 0.05, operation.name


def test_hue_is_torchvisions_of_each_image_alone() -> None:
    images, shifts = pictures(3), np.linspace(-0.5, 0.5, COUNT)
    images[0] = 90  # grey has no hue
    found = apply_operations(images.float(), np.full(COUNT, "Hue"), shifts)
    for image, shift, own in zip(images, shifts.tolist(), found, strict=True):
        assert (own - v2.functional.adjust_hue(image, shift)).abs().max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_does_not_depend_on_the_others_of_its_batch(channels: int) -> None:
    images = pictures(channels).float()
    operations = policy_operations(v2.TrivialAugmentWide, HEIGHT, WIDTH)
    chosen = [operations[index % len(operations)] for index in range(COUNT)]
    names = np.array([operation.name for operation in chosen])
    strengths = np.array([operation.strengths[20] for operation in chosen])
    whole = apply_operations(images, names, strengths)
    for rows in np.array_split(np.random.default_rng(0).permutation(COUNT), 5):
        assert torch.equal(apply_operations(images[rows], names[rows], strengths[rows]), whole[rows])
    assert torch.equal(whole, as_bytes(whole).float())
