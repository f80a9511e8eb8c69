from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chisquare

from ecd_deploy.data.augmentation.crop import crop_and_mirror, gathered
from ecd_deploy.data.draws import Purpose, draw_below, stream_key


def slow_augment(
    image: NDArray[np.uint8], index: int, seed: int, epoch: int, padding: int, flip: bool
) -> NDArray[np.uint8]:
    """One image, pixel by pixel: the crop of the padded image, mirrored."""

    def draw(purpose: Purpose, limit: int) -> int:
        return int(draw_below(stream_key(seed, epoch, purpose), torch.tensor(index), limit))

    channels, height, width = image.shape
    top, left = draw(Purpose.CROP_TOP, 2 * padding + 1), draw(Purpose.CROP_LEFT, 2 * padding + 1)
    padded = np.zeros((channels, height + 2 * padding, width + 2 * padding), dtype=np.uint8)
    padded[:, padding : padding + height, padding : padding + width] = image
    cropped = padded[:, top : top + height, left : left + width]
    return cropped[:, :, ::-1] if flip and draw(Purpose.FLIP, 2) else cropped


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 9), (3, 32, 32)])
@pytest.mark.parametrize("padding", [0, 1, 4, 11])
@pytest.mark.parametrize("flip", [False, True])
def test_equals_a_slow_reference_for_each_image(shape: tuple[int, int, int], padding: int, flip: bool) -> None:
    images = torch.randint(0, 256, (40, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    indices = torch.arange(40).flip(0)[::2].clone()
    draws = indices * 977
    result = crop_and_mirror(images, indices, draws, seed=7, epoch=3, crop_padding=padding, horizontal_flip=flip)
    assert len(result) == 20
    for index, draw, found in zip(indices, draws, result, strict=True):
        expected = slow_augment(images[index].numpy(), int(draw), 7, 3, padding, flip)
        np.testing.assert_array_equal(found.numpy(), expected)


def test_an_accelerator_gathers_what_the_cpu_copies() -> None:
    images = torch.randint(0, 256, (40, 3, 5, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    indices = torch.arange(40)
    places = [
        draw_below(stream_key(7, 3, purpose), indices, limit)
        for purpose, limit in ((Purpose.CROP_TOP, 5), (Purpose.CROP_LEFT, 5), (Purpose.FLIP, 2))
    ]
    result = gathered(torch.nn.functional.pad(images, (2,) * 4), *places, height=5, width=9)
    expected = crop_and_mirror(images, indices, indices, seed=7, epoch=3, crop_padding=2, horizontal_flip=True)
    assert torch.equal(result, expected)


def test_every_crop_and_mirror_is_as_likely_as_any_other() -> None:
    # one image of distinct pixels, whose place and direction can be read from the result
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3)
    count = 20_000
    result = crop_and_mirror(
        image,
        torch.zeros(count, dtype=torch.int64),
        torch.arange(count),
        seed=0,
        epoch=1,
        crop_padding=1,
        horizontal_flip=True,
    )
    _, frequencies = np.unique(result.view(count, 9).numpy(), axis=0, return_counts=True)
    assert len(frequencies) == 3 * 3 * 2
    assert chisquare(frequencies).pvalue > 1e-3


def test_another_epoch_or_seed_gives_another_augmentation() -> None:
    images = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    indices = torch.arange(64)
    first, next_epoch, next_seed = (
        crop_and_mirror(images, indices, indices, seed=seed, epoch=epoch, crop_padding=2, horizontal_flip=True)
        for seed, epoch in ((0, 1), (0, 2), (1, 1))
    )
    assert not torch.equal(first, next_epoch)
    assert not torch.equal(first, next_seed)
