"""Forward, loss and evaluation of every variant on tensors that say they are on CUDA and hold nothing.

On any machine they show where devices would be mixed up, and where the host would read or write the device's memory.
"""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from ecd_deploy.baselines.distillation import TrainedTeacher
from ecd_deploy.distill import DynamicConv2d, TeacherOptions, TrainingModel, build_objective
from ecd_deploy.models import build_student
from ecd_deploy.recipe.method import MethodConfig, PretrainedLoss
from ecd_deploy.training.methods import build_training_model
from tests.fake_cuda import Crossings, move
from tests.variants import VARIANTS

OF_THE_HOST = {"rkd": DynamicOutputShapeException, "crd": DataDependentOutputException}  # torchdistill's code


def build(method: MethodConfig) -> TrainingModel:
    torch.manual_seed(0)
    trained = TrainedTeacher(build_student("resnet20", num_classes=4), torch.arange(40) % 4)
    return build_training_model(
        method,
        build_student("resnet8", num_classes=4),
        example=torch.randn(2, 3, 16, 16),
        trained=trained if method.pretrained else None,
    )


def crossings(method: MethodConfig, *, unequal: bool = False) -> set[str]:
    model, objective = build(method), build_objective(method)
    with FakeTensorMode(allow_non_fake_inputs=True):
        move(model)
        if unequal:
            weights, offsets = torch.empty(2, 4, device="cuda")
            objective = build_objective(method, class_weights=weights, logit_offsets=offsets)
        images = torch.empty(6, 3, 16, 16, device="cuda")
        labels, indices = (torch.zeros(6, dtype=torch.int64, device="cuda") for _ in range(2))
        found = Crossings()
        with found:
            model.train()
            outputs = model(images, indices) if objective.pretrained else model(images)
            total = objective(outputs, labels).total
            model.eval()
            with torch.no_grad():
                heads = model(images).heads().values()
    assert total.device.type == "cuda"
    assert all(head.shape == (6, 4) and head.device.type == "cuda" for head in heads)
    return found.names


@pytest.mark.parametrize("name", VARIANTS)
def test_no_variant_mixes_devices_or_lets_the_host_wait(name: str) -> None:
    assert crossings(MethodConfig.model_validate(VARIANTS[name])) == set()


def test_neither_weights_nor_offsets_of_classes_let_the_host_wait() -> None:
    assert crossings(MethodConfig(name="one"), unequal=True) == set()


@pytest.mark.parametrize("loss", get_args(PretrainedLoss))
def test_of_the_two_stage_losses_two_let_the_host_wait(loss: str) -> None:
    if loss not in ("kd", "fitnet", "sp", "nst"):
        pytest.importorskip("torchdistill", reason="the extra [baselines] is not installed")
    method = MethodConfig.model_validate({"name": "distil", "pretrained": {"run": "x", "losses": (loss,)}})
    if loss not in OF_THE_HOST:
        assert crossings(method) == set()
        return
    with pytest.raises(OF_THE_HOST[loss]):
        crossings(method)


def test_a_value_that_the_host_makes_for_the_device_shows() -> None:
    """The planted fault."""
    found = Crossings()
    with FakeTensorMode(), found:
        images = torch.empty(6, 3, 4, 4, device="cuda")
        images.sub_(torch.tensor([0.5, 0.4, 0.3], device="cuda").view(1, -1, 1, 1))
    assert found.names == {"_to_copy"}


def test_a_dynamic_convolution_gives_no_view_so_that_a_connection_adds_in_place() -> None:
    layer = DynamicConv2d(nn.Conv2d(3, 4, 3, stride=2, padding=1), TeacherOptions(kernels=3))
    with FakeTensorMode(allow_non_fake_inputs=True):
        move(layer)
        output = layer(torch.empty(2, 3, 8, 8, device="cuda"))
    assert output.shape == (2, 4, 4, 4)
    assert output.device.type == "cuda"
    assert not output._is_view()
