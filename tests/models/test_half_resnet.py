"""ResNet50-half against torchvision's ResNet-50 with the blocks' widths halved."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from ecd_deploy.distill import ECDModel, TeacherOptions
from ecd_deploy.models import build_student


class Halved(ResNet):  # type: ignore[misc]
    def _make_layer(self, block: type[nn.Module], planes: int, blocks: int, *rest: Any, **named: Any) -> nn.Sequential:
        layer: nn.Sequential = super()._make_layer(block, planes // 2, blocks, *rest, **named)
        return layer


def test_it_computes_what_torchvision_s_blocks_of_half_the_width_do() -> None:
    student = build_student("resnet50-half", num_classes=7).eval()
    other = Halved(Bottleneck, [3, 4, 6, 3], num_classes=7)
    other.fc = nn.Linear(1024, 7)
    other.load_state_dict(student.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(student(images), other.eval()(images))


def test_the_paper_s_imagenet_connections_fit_it() -> None:
    student = build_student("resnet50-half", num_classes=7)
    model = ECDModel(
        student,
        TeacherOptions(kernels=8, backend="chunked"),
        connection="conv1x1_bn",
        stages=(2, 3, 4),
        example=torch.zeros(1, 3, 64, 64),
    )
    assert [len(stage.blocks) for stage in model.report.structure.stages] == [3, 4, 6, 3]
    # after each 3x3 convolution and after each block of Conv2_x to Conv4_x
    assert len(model.connections.sites) == 2 * (3 + 4 + 6)
    assert {entry.kernel_size for entry in model.report.replaced} == {(3, 3)}
    outputs = model.train()(torch.randn(2, 3, 64, 64))
    assert outputs.teacher is not None
    (outputs.student.sum() + outputs.teacher.sum()).backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
