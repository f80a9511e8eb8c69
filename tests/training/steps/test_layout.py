from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ecd_deploy.data import DataSplits
from ecd_deploy.distill import ECDModel, PlainModel, TeacherOptions, TrainingOutputs
from ecd_deploy.models import build_student
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.training import train
from ecd_deploy.training.steps.layout import runs_in_channels_last
from tests.small import present


class Flattening(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4 * 36, 2)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.conv(images)
        logits: Tensor = self.fc(features.view(len(features), -1))
        return logits


def test_a_student_that_views_its_features_keeps_the_default_layout() -> None:
    assert not runs_in_channels_last(Flattening(), (3, 8, 8))
    assert runs_in_channels_last(build_student("resnet8", num_classes=2), (3, 8, 8))


class Watching(PlainModel):
    def __init__(self) -> None:
        super().__init__(build_student("resnet8", num_classes=10, in_channels=1))
        self.seen: set[torch.memory_format] = set()

    def forward(self, images: Tensor) -> TrainingOutputs:
        self.seen.add(self.layout)
        return super().forward(images)


@pytest.mark.parametrize(
    ("wanted", "layout"),
    [("cpu", torch.channels_last), ("always", torch.channels_last), ("never", torch.contiguous_format)],
)
def test_training_sets_the_layout_and_puts_it_back(
    wanted: str, layout: torch.memory_format, make_recipe: Callable[..., Recipe], data: DataSplits, tmp_path: Path
) -> None:
    model = Watching()
    recipe = make_recipe("train.epochs=1", "data.train_limit=100", f"train.channels_last={wanted}")
    result = train(model, data, recipe, tmp_path, resume=False)
    assert model.seen == {layout}
    assert present(result.use).channels_last is (wanted != "never")
    assert model.layout == torch.contiguous_format


def test_both_layouts_give_the_same_logits_and_gradients() -> None:
    torch.manual_seed(0)
    model = ECDModel(build_student("resnet8", num_classes=5).double(), TeacherOptions(kernels=3)).train()
    images = torch.randn(4, 3, 12, 12, dtype=torch.float64)
    parameters = list(model.parameters())
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model.layout = layout
        logits = torch.stack(list(model(images).heads().values()))
        results.append((logits, *torch.autograd.grad(logits.square().sum(), parameters)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)
