"""Classes of unequal size through the whole loop: what is recorded, and which epoch is the best."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ecd_deploy.data import DataSplits, ImageSet, Normalisation
from ecd_deploy.distill import PlainModel
from ecd_deploy.recipe.train import Select
from ecd_deploy.training import load_weights
from tests.small import present
from tests.training.helpers import MakeRecipe, metrics, run

STEPS = 2  # of an epoch
SIZES = (27, 2, 1)  # images of each class


class Planted(nn.Module):
    """Answers in evaluation after one epoch class 0 always, after that what is right but for class 0."""

    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.steps.add_(1)
            return self.bias.expand(len(images), 3)
        labels = (images[:, 0, 2, 2] * 255).round().long()
        right = torch.where(labels == 0, 1, labels)
        answers = torch.where(self.steps <= STEPS, torch.zeros_like(right), right)
        return nn.functional.one_hot(answers, 3).float()


@pytest.fixture
def unequal() -> DataSplits:
    """Images that say in their pixels what they are of."""
    labels = np.repeat(np.arange(3), SIZES)
    images = ImageSet(np.broadcast_to(labels.astype(np.uint8)[:, None, None, None], (30, 1, 4, 4)).copy(), labels)
    return DataSplits(images, images, images, ("cat", "dog", "owl"), Normalisation((0.0,), (1.0,)), digest="planted")


@pytest.mark.parametrize(("select", "epoch"), [("best", 1), ("balanced_accuracy", 2)])
def test_the_best_epoch_is_that_of_the_accuracy_that_selects(
    select: Select, epoch: int, make_recipe: MakeRecipe, unequal: DataSplits, tmp_path: Path
) -> None:
    recipe = make_recipe(f"train.select={select}", "train.batch_size=15", "method.name=plain")
    result = run(PlainModel(Planted()), unequal, recipe, tmp_path)
    assert present(result.best).epoch == epoch
    lines = metrics(tmp_path)
    assert [line["validation_top1"] for line in lines] == [0.9, 0.1, 0.1]
    assert [line["validation_recall"] for line in lines] == [
        {"cat": 1.0, "dog": 0.0, "owl": 0.0},
        *[{"cat": 0.0, "dog": 1.0, "owl": 1.0}] * 2,
    ]
    assert [line["validation_balanced_accuracy"] for line in lines] == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    loaded = PlainModel(Planted())
    load_weights(tmp_path, select, loaded)
    assert loaded.student.get_buffer("steps").item() == epoch * STEPS


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("train.sampling=shuffle", (27, 2, 1)),
        ("train.sampling=balanced", (10, 10, 10)),
    ],
)
def test_an_epoch_trains_on_as_many_images_of_each_class_as_the_recipe_says(
    option: str, expected: tuple[int, ...], make_recipe: MakeRecipe, unequal: DataSplits, tmp_path: Path
) -> None:
    seen: list[int] = []
    model = PlainModel(Planted())
    model.register_forward_pre_hook(
        lambda module, inputs: (
            seen.extend((inputs[0][:, 0, 2, 2] * 255).round().int().tolist()) if module.training else None
        )
    )
    run(model, unequal, make_recipe(option, "train.batch_size=15", "train.epochs=1"), tmp_path)
    assert tuple(np.bincount(seen)) == expected


def test_what_is_learnt_follows_the_weights_of_the_classes(
    make_recipe: MakeRecipe, unequal: DataSplits, tmp_path: Path
) -> None:
    """A constant student learns the logarithms of the shares, of which weights and offsets leave nothing."""
    learnt = {}
    for option in ("class_weights=balanced", "logit_adjustment=1.0", "label_smoothing=0.0"):
        options = (f"train.{option}", "train.batch_size=30", "train.weight_decay=0.0", "train.epochs=8")
        model = PlainModel(Planted())
        run(model, unequal, make_recipe(*options, "train.learning_rate=1.0", "train.select=last"), tmp_path / option)
        bias = model.student.get_parameter("bias").detach()
        learnt[option] = (bias - bias.mean()).abs().max().item()
    assert learnt["class_weights=balanced"] < 1e-4
    assert learnt["logit_adjustment=1.0"] < 1e-4
    assert learnt["label_smoothing=0.0"] > 1
