"""A student whose forward looks at values: TorchScript takes every way, or says that it cannot."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ecd_deploy.distill import PlainModel
from ecd_deploy.errors import ExportError
from ecd_deploy.exporters import ArtefactMetadata
from ecd_deploy.exporters.contract import ExportInput
from ecd_deploy.exporters.pytorch.torchscript import TorchScriptExporter
from ecd_deploy.split import SplitStudent, split_student
from tests.small import digit_images


class Branching(nn.Module):
    """Doubles the features of bright images."""

    def forward(self, features: Tensor) -> Tensor:
        if features.max() > 100.0:
            features = features * 2
        return features


class Switched(nn.Module):
    """Looks at a value of its own, which is the same for all images."""

    on: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("on", torch.ones(1))

    def forward(self, features: Tensor) -> Tensor:
        return features * self.on if self.on > 0 else features


class Apply(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, features: Tensor) -> Tensor:
        return self.function(features)


def split(middle: nn.Module) -> SplitStudent:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Conv2d(1, 8, 3), middle, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    return split_student(PlainModel(student), digit_images(4))


def test_both_ways_of_a_branch_are_in_the_file(metadata: ArtefactMetadata) -> None:
    student = split(Branching())
    predict = TorchScriptExporter().open(TorchScriptExporter().export(ExportInput(student, metadata)), nn.Identity)
    dark = digit_images(3)
    bright = dark * 1000
    for images in (dark, bright):
        with torch.no_grad():
            expected = student.module(images)
        torch.testing.assert_close(torch.from_numpy(predict(images.numpy())), expected)
    assert TorchScriptExporter().export(ExportInput(student, metadata)) == TorchScriptExporter().export(
        ExportInput(split(Branching()), metadata)
    )


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * 2 if x.max() > 100 else x,
        lambda x: x * max(1.0, x.max().item() / 1e6),
        lambda x: x[:, : 1 + int(x.max() > 100)],
    ],
    ids=["branch", "number", "slice"],
)
def test_what_cannot_be_compiled_is_refused_by_name(
    metadata: ArtefactMetadata, function: Callable[[Tensor], Tensor]
) -> None:
    torch.manual_seed(0)
    student = split(Apply(lambda x: function(x).mean(1, keepdim=True).expand_as(x)))
    with pytest.raises(ExportError, match=r"module '1' \(Apply\) looks at the values of the images, and TorchScript"):
        TorchScriptExporter().export(ExportInput(student, metadata))


def test_a_value_that_is_the_same_for_all_images_is_no_obstacle(metadata: ArtefactMetadata) -> None:
    student = split(Switched())
    predict = TorchScriptExporter().open(TorchScriptExporter().export(ExportInput(student, metadata)), nn.Identity)
    images = digit_images(3)
    with torch.no_grad():
        expected = student.module(images)
    torch.testing.assert_close(torch.from_numpy(predict(images.numpy())), expected)
