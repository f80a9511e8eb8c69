from __future__ import annotations

import numpy as np
import torch
from scipy.stats import binomtest, kstest

from ecd_deploy.data.augmentation.boxes import Boxes
from ecd_deploy.data.augmentation.erasing import draw_erased, erase

SIZE = (40, 50)
COUNT = 4000


def test_boxes_have_the_published_areas_and_aspects_and_lie_within() -> None:
    boxes = draw_erased(0.25, SIZE, np.arange(COUNT), seed=3, epoch=2)
    erased = boxes.area() > 0
    assert binomtest(int(erased.sum()), COUNT, 0.25).pvalue > 1e-4
    heights, widths = (boxes.bottom - boxes.top)[erased], (boxes.right - boxes.left)[erased]
    shares = heights * widths / (SIZE[0] * SIZE[1])
    assert kstest(shares, "uniform", args=(0.02, 0.31)).statistic < 0.06  # sides are whole pixels
    assert (heights / widths).min() > 0.25
    assert (heights / widths).max() < 4
    for low, high, side in ((boxes.top, boxes.bottom, SIZE[0]), (boxes.left, boxes.right, SIZE[1])):
        assert low[erased].min() == 0
        assert high[erased].max() == side
    assert draw_erased(0.0, SIZE, np.arange(COUNT), seed=3, epoch=2).area().max() == 0
    assert draw_erased(1.0, SIZE, np.arange(COUNT), seed=3, epoch=2).area().min() > 0


def test_only_the_box_is_set_to_the_mean() -> None:
    images = torch.rand(3, 2, 6, 7) + 1
    boxes = Boxes(*np.array([[0, 2, 5], [2, 2, 6], [1, 3, 0], [4, 3, 7]], dtype=np.float64))
    expected = images.clone()
    expected[0, :, 0:2, 1:4] = 0
    expected[2, :, 5:6, 0:7] = 0
    assert torch.equal(erase(images.clone(), boxes), expected)
