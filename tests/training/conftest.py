from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
import torch
from torch import Tensor, nn

from ecd_deploy.data import DataSplits, load_data
from ecd_deploy.distill import TrainingModel, TrainingOutputs
from ecd_deploy.recipe.recipe import Recipe, load_recipe


class TinyJoint(TrainingModel):
    """Two heads with batch norm and dropout, as small as they can be."""

    def __init__(self) -> None:
        super().__init__()
        self.student = self._network()
        self.teacher = self._network()

    def auxiliary(self) -> Mapping[str, nn.Module]:
        return {"teacher": self.teacher}

    def forward(self, images: Tensor) -> TrainingOutputs:
        return TrainingOutputs(self.student(images), self.teacher(images))

    def _network(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(144, 10)
        )


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they give at this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_model() -> Callable[[], TrainingModel]:
    """Builds the same initial model each time."""

    def make() -> TrainingModel:
        torch.manual_seed(0)
        return TinyJoint()

    return make


@pytest.fixture
def make_recipe() -> Callable[..., Recipe]:
    """Builds a recipe of three short epochs; arguments override it."""

    def make(*overrides: str) -> Recipe:
        short = ("train.epochs=3", "data.train_limit=300", "train.trackers=[]", "data.horizontal_flip=true")
        return load_recipe("digits", (*short, *overrides))

    return make


@pytest.fixture
def data(make_recipe: Callable[..., Recipe]) -> DataSplits:
    recipe = make_recipe()
    return load_data(recipe.data, seed=recipe.seed)
