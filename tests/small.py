"""What tests of several parts share that is small: a few real images, and one thread for tiny tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

T = TypeVar("T")


def digit_images(count: int) -> Tensor:
    """Real digits, (count, 1, 8, 8), of about -1..1."""
    images = load_digits().images[:count]
    return torch.tensor(images, dtype=torch.float32).div(8).sub(1).unsqueeze(1)


def present(value: T | None) -> T:
    """What is there, of a field that may be empty."""
    assert value is not None
    return value


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and lose much where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
