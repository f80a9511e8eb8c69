"""How many launches a step of ResNet-20 is on a GPU, and how many bytes they move: not to grow unseen."""

from __future__ import annotations

import pytest

from tests.training.launch_count import count

BATCH = 128


@pytest.mark.parametrize(
    ("method", "fused", "launches", "gigabytes"),
    [
        ("student", False, 181, 1.69),
        ("student", True, 124, 1.30),
        ("ecd", False, 829, 5.66),
        ("ecd by triton", False, 451, 5.26),
        ("ecd by triton", True, 296, 4.16),
    ],
)
def test_a_step_has_no_more_launches_and_bytes_than_it_had(
    method: str, fused: bool, launches: int, gigabytes: float
) -> None:
    """Bytes are those of parameters and those of images, so that two small batches tell them of any."""
    small, large = (count(method, images, fused=fused) for images in (2, 3))
    assert small.total == large.total
    found = small.bytes + (large.bytes - small.bytes) * (BATCH - 2)
    assert 0.98 * launches < small.total <= launches
    assert 0.98 * gigabytes < found / 1e9 <= gigabytes
