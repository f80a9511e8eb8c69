"""What the tests of training share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ecd_deploy.data import DataSplits
from ecd_deploy.distill import TrainingModel
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.training import TrainingResult, train

MakeModel = Callable[[], TrainingModel]
MakeRecipe = Callable[..., Recipe]


def run(
    model: TrainingModel, data: DataSplits, recipe: Recipe, directory: Path, *, resume: bool = False
) -> TrainingResult:
    return train(model, data, recipe, directory, resume=resume)


def metrics(directory: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds")
    return lines


def same_state(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(name == other and torch.equal(tensor, found) for (name, tensor), (other, found) in pairs)


def at_forward(model: nn.Module, number: int, action: Callable[[tuple[Tensor, ...]], object]) -> None:
    """Do something before the forward of that number in training mode, counted from 1."""
    count = 0

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal count
        count += module.training
        if module.training and count == number:
            action(inputs)

    model.register_forward_pre_hook(hook)


def interrupt(_: tuple[Tensor, ...]) -> None:
    raise KeyboardInterrupt
