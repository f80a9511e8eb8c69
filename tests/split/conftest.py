from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ecd_deploy.distill import ECDModel, PlainModel
from ecd_deploy.models import build_student
from tests.small import digit_images, one_thread
from tests.split.models import make_joint

__all__ = ["one_thread"]


@pytest.fixture(scope="session")
def images() -> Tensor:
    """Four real digits, (4, 1, 8, 8)."""
    return digit_images(4)


@pytest.fixture
def joint(images: Tensor) -> ECDModel:
    """A joint model whose running statistics have seen a batch, left in train mode."""
    return make_joint(images)


@pytest.fixture
def plain() -> PlainModel:
    torch.manual_seed(0)
    return PlainModel(build_student("resnet8", num_classes=10, in_channels=1))
