from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ecd_deploy.distill import StudentStructure, find_structure
from ecd_deploy.errors import StudentError
from ecd_deploy.models import build_student


def outline(structure: StudentStructure) -> list[tuple[int, tuple[int, int], list[str]]]:
    return [(stage.number, stage.resolution, [block.name for block in stage.blocks]) for stage in structure.stages]


class ConvNorm(nn.Module):
    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(features)))


class NestedBlock(nn.Module):
    """Its convolutions are composites in a Sequential, which are no blocks of their own."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvNorm(before, after, stride), ConvNorm(after, after))

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = self.body(features)
        return output


class StageClass(nn.Module):
    """A stage that is a class of its own, with the blocks inside a Sequential."""

    def __init__(self, before: int, after: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            NestedBlock(before, after, 2), *(NestedBlock(after, after) for _ in range(blocks - 1))
        )

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = self.blocks(features)
        return output


class Siblings(nn.Module):
    """Blocks that are attributes beside each other."""

    def __init__(self) -> None:
        super().__init__()
        self.first = NestedBlock(4, 4)
        self.second = NestedBlock(4, 4, 2)

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = self.second(self.first(features))
        return output


def head(channels: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)


def test_resnet20_has_three_stages_of_three_blocks() -> None:
    structure = find_structure(build_student("resnet20", num_classes=10))
    assert outline(structure) == [
        (2, (32, 32), ["layer1.0", "layer1.1", "layer1.2"]),
        (3, (16, 16), ["layer2.0", "layer2.1", "layer2.2"]),
        (4, (8, 8), ["layer3.0", "layer3.1", "layer3.2"]),
    ]
    assert [conv.name for conv in structure.blocks[0].convolutions] == ["layer1.0.conv1", "layer1.0.conv2"]


@pytest.mark.parametrize(("name", "convolutions"), [("resnet164", 1), ("wrn-16-2", 2)])
def test_other_families_have_three_stages(name: str, convolutions: int) -> None:
    structure = find_structure(build_student(name, num_classes=10))
    assert [stage.number for stage in structure.stages] == [2, 3, 4]
    assert {len(block.convolutions) for block in structure.blocks} == {convolutions}


def test_resolution_follows_the_example() -> None:
    structure = find_structure(build_student("resnet8", num_classes=10, in_channels=1), torch.zeros(5, 1, 8, 8))
    assert structure.image_shape == (1, 8, 8)
    assert [stage.resolution for stage in structure.stages] == [(8, 8), (4, 4), (2, 2)]


def test_torchvision_resnet18_has_its_four_stages() -> None:
    structure = find_structure(build_student("torchvision:resnet18", num_classes=10))
    assert [len(stage.blocks) for stage in structure.stages] == [2, 2, 2, 2]
    assert structure.blocks[0].name == "layer1.0"


def test_torchvision_mobilenet_v2_has_its_inverted_residuals_as_blocks() -> None:
    structure = find_structure(build_student("torchvision:mobilenet_v2", num_classes=10), torch.zeros(1, 3, 96, 96))
    assert [block.name for block in structure.blocks] == [f"features.{index}" for index in range(1, 18)]
    assert [stage.resolution[0] for stage in structure.stages] == [48, 24, 12, 6, 3]


def chain() -> nn.Module:
    """Convolutions and activations in a row, as in VGG; the activations overwrite."""
    layers: list[nn.Module] = []
    for before, after in ((3, 4), (4, 4), (4, 8), (8, 8)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(2)] if after != before else []
    return nn.Sequential(*layers, *head(8))


def test_a_student_without_blocks_has_a_block_for_each_convolution_but_the_first() -> None:
    structure = find_structure(chain())
    assert outline(structure) == [(2, (16, 16), ["3", "5"]), (3, (8, 8), ["8"])]
    assert all(block.convolutions == (block.output,) for block in structure.blocks)


def test_stage_classes_are_descended_and_composite_convolutions_are_not() -> None:
    student = nn.Sequential(ConvNorm(3, 4), StageClass(4, 8, 2), StageClass(8, 8, 1), *head(8))
    assert outline(find_structure(student)) == [
        (2, (16, 16), ["1.blocks.0", "1.blocks.1"]),
        (3, (8, 8), ["2.blocks.0"]),
    ]


def test_blocks_may_be_attributes_beside_each_other() -> None:
    student = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Siblings(), *head(4))
    assert outline(find_structure(student)) == [(2, (32, 32), ["1.first"]), (3, (16, 16), ["1.second"])]


def test_a_stem_of_its_own_class_is_no_block() -> None:
    student = nn.Sequential(ConvNorm(3, 4), NestedBlock(4, 4), *head(4))
    assert [block.name for block in find_structure(student).blocks] == ["1"]


def test_larger_images_are_tried_where_small_ones_fail() -> None:
    student = nn.Sequential(nn.Conv2d(3, 4, 3, 4), NestedBlock(4, 4), nn.Conv2d(4, 4, 12), *head(4))
    assert find_structure(student).image_shape == (3, 64, 64)


def test_the_student_is_not_touched() -> None:
    student = build_student("resnet8", num_classes=10).train()
    student.get_submodule("layer2").eval()
    modes = [module.training for module in student.modules()]
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    random_state = torch.get_rng_state()
    find_structure(student, torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert [module.training for module in student.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(module._forward_hooks for module in student.modules())


def test_outputs_that_are_overwritten_are_known() -> None:
    assert all(block.output.overwritten for block in find_structure(chain()).blocks)
    structure = find_structure(build_student("torchvision:resnet18", num_classes=10))
    assert not any(conv.overwritten for block in structure.blocks for conv in (*block.convolutions, block.output))


def test_a_stage_that_does_not_exist_names_those_found() -> None:
    structure = find_structure(build_student("resnet8", num_classes=10))
    with pytest.raises(StudentError, match=r"no stage 5; .*3x32x32 its stages are 2 \(32x32\), 3 \(16x16\), 4 \(8x8\)"):
        structure.stage(5)


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.conv(images), self.conv(images)


@pytest.mark.parametrize(
    ("student", "example", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), None, "has no torch.nn.Conv2d"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), *head(4)), None, "no torch.nn.Conv2d with a kernel above 1x1"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), *head(5)), None, r"cannot be run on an image of shape \(1, 3, 224, 224\)"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), *head(4)), torch.zeros(1, 2, 8, 8), r"shape \(1, 2, 8, 8\): RuntimeError"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), *head(4)), torch.zeros(3, 8, 8), r"its shape is \(3, 8, 8\)"),
        (nn.Conv2d(3, 4, 3), None, r"must return logits .* it returned a tensor of shape \(1, 4, 30, 30\)"),
        (TwoHeads(), None, "must return logits .* it returned tuple"),
    ],
)
def test_students_that_cannot_be_treated(student: nn.Module, example: Tensor | None, message: str) -> None:
    with pytest.raises(StudentError, match=message):
        find_structure(student, example)
