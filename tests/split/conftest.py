from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from ecd_deploy.distill import ECDModel, PlainModel
from ecd_deploy.models import build_student


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and lose much where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def images() -> Tensor:
    """Four real digits, (4, 1, 8, 8)."""
    digits = load_digits().images[:4]
    return torch.tensor(digits, dtype=torch.float32).div(8).sub(1).unsqueeze(1)


@pytest.fixture
def joint(images: Tensor) -> ECDModel:
    """A joint model whose running statistics have seen a batch, left in train mode."""
    torch.manual_seed(0)
    student = build_student("resnet8", num_classes=10, in_channels=1)
    model = ECDModel(student, kernels=2, example=images)
    with torch.no_grad():
        model.train()(images)
    return model


@pytest.fixture
def plain() -> PlainModel:
    torch.manual_seed(0)
    return PlainModel(build_student("resnet8", num_classes=10, in_channels=1))
