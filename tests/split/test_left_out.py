"""What is left out of some steps, or run again in the backward pass, trains and passes the split, whatever it joins."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import Tensor, nn

from ecd_deploy.distill import build_objective
from ecd_deploy.recipe.method import MethodConfig
from ecd_deploy.recipe.train import TrainConfig
from ecd_deploy.split import split_student
from ecd_deploy.training.methods import build_training_model
from ecd_deploy.training.steps.optimizer import build_optimizer
from tests.small import digit_images
from tests.students.faulty import checkpointed, expert_by_chance, leaves_out_at_random
from tests.variants import VARIANTS

METHODS = ("ecd", "dense conv1x1_bn", "stage features")


def stochastic_depth(num_classes: int, in_channels: int) -> nn.Module:
    """A residual branch that is left out of half of the steps, for the whole batch."""
    student = checkpointed(num_classes, in_channels)
    branch = student.get_submodule("middle.block")

    class Depth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = branch

        def forward(self, features: Tensor) -> Tensor:
            if self.training and torch.rand(()) < 0.5:
                return features
            output: Tensor = features + self.branch(features)
            return output

    student.middle = Depth()
    return student


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factory", [leaves_out_at_random, stochastic_depth, checkpointed, expert_by_chance])
def test_it_trains_and_passes_the_split(factory: object, method: str) -> None:
    assert callable(factory)
    images, labels = digit_images(8), torch.arange(8)
    torch.manual_seed(0)
    config = MethodConfig.model_validate({"kernels": 2, "stages": (2,), **VARIANTS[method]})
    model = build_training_model(config, factory(10, 1), example=images)
    objective = build_objective(config)
    before = {name: parameter.detach().clone() for name, parameter in model.student.named_parameters()}
    optimizer = build_optimizer(model, TrainConfig(learning_rate=0.01))
    model.train()
    for _ in range(8):
        optimizer.zero_grad(set_to_none=True)
        loss = objective(model(images), labels).total
        torch.autograd.backward(loss)
        optimizer.step()
        assert torch.isfinite(loss)
    still = [name for name, parameter in model.student.named_parameters() if torch.equal(parameter, before[name])]
    assert not still
    split = split_student(model, images, factory=lambda: factory(10, 1))
    with torch.no_grad():
        assert F.cross_entropy(split.module(images), labels).isfinite()
