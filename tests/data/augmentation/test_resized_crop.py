from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import InterpolationMode, RandomResizedCrop, functional

from ecd_deploy.data.augmentation.resized_crop import CropBox, choose_box, crop_draws

ASPECTS = (3 / 4, 4 / 3)


def boxes(size: tuple[int, int], area: tuple[float, float], count: int, *, epoch: int = 1) -> list[CropBox]:
    draws = crop_draws(np.arange(count), seed=0, epoch=epoch).tolist()
    return [choose_box(size, area, each) for each in draws]


@pytest.mark.parametrize("size", [(60, 45), (21, 34), (9, 7)])
def test_pixels_equal_torchvisions(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    for box in boxes(size, (0.08, 1.0), 20):
        reference = functional.resized_crop(
            image, box.top, box.left, box.height, box.width, [16, 12], InterpolationMode.BILINEAR
        )
        np.testing.assert_array_equal(np.asarray(box.cut(image, (16, 12))), np.asarray(reference))


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (64, 64)])
@pytest.mark.parametrize("area", [(0.08, 1.0), (0.3, 0.5)])
def test_boxes_lie_inside_and_their_share_and_aspect_are_in_range(
    size: tuple[int, int], area: tuple[float, float]
) -> None:
    width, height = size
    for box in boxes(size, area, 500):
        assert 0 <= box.left <= width - box.width
        assert 0 <= box.top <= height - box.height
        # both sides are rounded to whole pixels
        smallest, largest = (box.width - 0.5) * (box.height - 0.5), (box.width + 0.5) * (box.height + 0.5)
        assert smallest <= area[1] * width * height
        assert largest >= area[0] * width * height
        assert (box.width - 0.5) / (box.height + 0.5) <= ASPECTS[1]
        assert (box.width + 0.5) / (box.height - 0.5) >= ASPECTS[0]


def test_boxes_are_distributed_as_torchvisions() -> None:
    count, size = 1500, (120, 90)
    image = torch.zeros(3, size[1], size[0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = [RandomResizedCrop.get_params(image, [0.08, 1.0], list(ASPECTS)) for _ in range(count)]
    ours = [(box.top, box.left, box.height, box.width) for box in boxes(size, (0.08, 1.0), count)]
    for number in range(4):
        assert ks_2samp([box[number] for box in ours], [box[number] for box in found]).pvalue > 1e-3
    areas, theirs = ([math.log(height * width) for _, _, height, width in each] for each in (ours, found))
    assert ks_2samp(areas, theirs).pvalue > 1e-3


@pytest.mark.parametrize("size", [(400, 20), (20, 400), (401, 21), (3, 1), (1, 1)])
def test_where_nothing_fits_the_middle_is_torchvisions(size: tuple[int, int]) -> None:
    image = torch.zeros(3, size[1], size[0])
    reference = RandomResizedCrop.get_params(image, [1.0, 1.0], list(ASPECTS))
    box = boxes(size, (1.0, 1.0), 1)[0]
    assert (box.top, box.left, box.height, box.width) == tuple(reference)


def test_a_box_depends_on_seed_epoch_and_index_alone() -> None:
    whole = crop_draws(np.arange(20), seed=3, epoch=2)
    assert np.array_equal(crop_draws(np.array([7, 19, 0]), seed=3, epoch=2), whole[[7, 19, 0]])
    assert len(set(whole.flatten().tolist())) == whole.size
    assert not np.isin(whole, crop_draws(np.arange(20), seed=3, epoch=1)).any()
    assert not np.isin(whole, crop_draws(np.arange(20), seed=4, epoch=2)).any()
