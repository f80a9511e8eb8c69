"""How many launches a step of ResNet-20 is on a GPU, and how many bytes they move: not to grow unseen."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ecd_deploy.data import Batch
from tests.training.launch_count import Launches, as_on_cuda
from tests.training.repeated_steps import make_work
from tests.triton_launches import standing_in

METHODS: dict[str, dict[str, Any]] = {
    "student": {"name": "plain"},
    "ecd": {"name": "ecd", "kernels": 16},
    "ecd by triton": {"name": "ecd", "kernels": 16, "backend": "triton"},
}
SIDE, BATCH = 32, 128


def count(method: str, images: int) -> Launches:
    """Of the second step; the first checks the launches of each shape."""
    work = make_work(METHODS[method], student="resnet20", side=SIDE)
    batch = Batch(torch.randn(images, 3, SIDE, SIDE), torch.arange(images), torch.arange(images), images)
    with as_on_cuda(), standing_in():
        work.losses.begin_step(1, images)
        work(batch)
        with (found := Launches()):
            work(batch)
    return found


@pytest.mark.parametrize(
    ("method", "launches", "gigabytes"), [("student", 193, 1.69), ("ecd", 858, 5.79), ("ecd by triton", 564, 5.51)]
)
def test_a_step_has_no_more_launches_and_bytes_than_it_had(method: str, launches: int, gigabytes: float) -> None:
    """Bytes are those of parameters and those of images, so that two small batches tell them of any."""
    small, large = count(method, 2), count(method, 3)
    assert small.total == large.total
    found = small.bytes + (large.bytes - small.bytes) * (BATCH - 2)
    assert 0.9 * launches < small.total <= launches
    assert 0.9 * gigabytes < found / 1e9 <= gigabytes
