"""How many launches a step of ResNet-20 is on a GPU, and how many bytes they move: not to grow unseen."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ecd_deploy.data import Batch
from ecd_deploy.training.fused.fusing import lightened
from tests.training.launch_count import Launches, as_on_cuda
from tests.training.repeated_steps import make_work
from tests.triton_launches import standing_in

METHODS: dict[str, dict[str, Any]] = {
    "student": {"name": "plain"},
    "ecd": {"name": "ecd", "kernels": 16},
    "ecd by triton": {"name": "ecd", "kernels": 16, "backend": "triton"},
}
SIDE, BATCH = 32, 128


def count(method: str, images: int, *, fused: bool) -> Launches:
    """Of a step after the first, which checks the launches of each shape."""
    work = make_work(METHODS[method], student="resnet20", side=SIDE)
    batch = Batch(torch.randn(images, 3, SIDE, SIDE), torch.arange(images), torch.arange(images), images)
    with as_on_cuda(), standing_in():
        work.losses.begin_step(1, images)
        work(batch)
        step: Callable[[], None] = functools.partial(work, batch)
        if fused:
            step = lightened(step, work.changed(), work.optimizer.zero_grad).run
        with (found := Launches()):
            step()
    return found


@pytest.mark.parametrize(
    ("method", "fused", "launches", "gigabytes"),
    [
        ("student", False, 182, 1.69),
        ("student", True, 126, 1.37),
        ("ecd", False, 847, 5.79),
        ("ecd by triton", False, 529, 5.51),
        ("ecd by triton", True, 412, 4.66),
    ],
)
def test_a_step_has_no_more_launches_and_bytes_than_it_had(
    method: str, fused: bool, launches: int, gigabytes: float
) -> None:
    """Bytes are those of parameters and those of images, so that two small batches tell them of any."""
    small, large = (count(method, images, fused=fused) for images in (2, 3))
    assert small.total == large.total
    found = small.bytes + (large.bytes - small.bytes) * (BATCH - 2)
    assert 0.9 * launches < small.total <= launches
    assert 0.9 * gigabytes < found / 1e9 <= gigabytes
