from __future__ import annotations

import pytest
import torch
from torch import nn

from ecd_deploy.models import build_student, student_names


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def closed_form_resnet(depth: int, classes: int, channels: int) -> int:
    n = (depth - 2) // 6
    total = 9 * channels * 16 + 2 * 16
    for before, width in ((16, 16), (16, 32), (32, 64)):
        total += 9 * before * width + (2 * n - 1) * 9 * width**2 + 2 * n * 2 * width
        total += (before * width + 2 * width) if before != width else 0
    return total + 64 * classes + classes


def closed_form_wide(depth: int, width: int, classes: int) -> int:
    n = (depth - 4) // 6
    total, before = 9 * 3 * 16, 16
    for base in (16, 32, 64):
        out = base * width
        total += 9 * before * out + (2 * n - 1) * 9 * out**2
        total += 2 * before + (2 * n - 1) * 2 * out
        total += before * out if (before != out or base != 16) else 0
        before = out
    return total + 2 * before + before * classes + classes


@pytest.mark.parametrize("depth", [8, 20, 32, 44, 56, 110])
@pytest.mark.parametrize(("classes", "channels"), [(10, 1), (100, 3)])
def test_resnet_has_exactly_the_parameters_of_its_definition(depth: int, classes: int, channels: int) -> None:
    network = build_student(f"resnet{depth}", num_classes=classes, in_channels=channels)
    assert count(network) == closed_form_resnet(depth, classes, channels)


@pytest.mark.parametrize(("depth", "width"), [(10, 1), (16, 2), (16, 4), (40, 1), (40, 2)])
def test_wide_resnet_has_exactly_the_parameters_of_its_definition(depth: int, width: int) -> None:
    assert count(build_student(f"wrn-{depth}-{width}", num_classes=100)) == closed_form_wide(depth, width, 100)


# He et al. (2015), table 6: 10 classes, shortcuts of option A. Ours are of option B: two 1x1 convolutions
# with batch norm more.
@pytest.mark.parametrize(
    ("depth", "millions", "decimals"), [(20, 0.27, 2), (32, 0.46, 2), (44, 0.66, 2), (56, 0.85, 2), (110, 1.7, 1)]
)
def test_resnet_of_option_a_has_the_published_size(depth: int, millions: float, decimals: int) -> None:
    projections = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    without = count(build_student(f"resnet{depth}", num_classes=10)) - projections
    assert round(without / 1e6, decimals) == millions


# 100 classes: the sizes that go with the usual CIFAR-100 distillation figures; for ResNet-164, Liu et al. (2017),
# <https://arxiv.org/abs/1708.06519>, table 1.
@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet20", 0.28),
        ("resnet32", 0.47),
        ("resnet56", 0.86),
        ("resnet110", 1.74),
        ("resnet164", 1.73),
        ("wrn-16-2", 0.70),
        ("wrn-40-1", 0.57),
        ("wrn-40-2", 2.26),
    ],
)
def test_hundred_class_size_is_the_published_one(name: str, millions: float) -> None:
    assert round(count(build_student(name, num_classes=100)) / 1e6, 2) == millions


# Zagoruyko and Komodakis (2016), table 4, and He et al. (2016): 10 classes.
@pytest.mark.parametrize(
    ("name", "millions"), [("wrn-40-1", 0.6), ("wrn-40-2", 2.2), ("wrn-28-10", 36.5), ("resnet164", 1.7)]
)
def test_ten_class_size_is_the_published_one(name: str, millions: float) -> None:
    with torch.device("meta"):
        assert round(count(build_student(name, num_classes=10)) / 1e6, 1) == millions


@pytest.mark.parametrize("name", [name for name in student_names() if name not in ("wrn-28-10", "resnet50-half")])
def test_stages_are_layer1_to_layer3_and_halve_the_resolution(name: str) -> None:
    network = build_student(name, num_classes=7, in_channels=1).eval()
    sizes: list[tuple[int, ...]] = []
    for stage in ("layer1", "layer2", "layer3"):
        network.get_submodule(stage).register_forward_hook(lambda _m, _i, output: sizes.append(output.shape[2:]))
    with torch.no_grad():
        assert network(torch.randn(2, 1, 16, 16)).shape == (2, 7)
    assert sizes == [(16, 16), (8, 8), (4, 4)]


def test_preactivation_block_leaves_the_sum_as_it_is() -> None:
    block = build_student("wrn-16-2", num_classes=10).get_submodule("layer1.1")
    last = block.get_submodule("conv2")
    with torch.no_grad():
        last.get_parameter("weight").zero_()
        features = torch.randn(2, 32, 8, 8)
        assert torch.equal(block(features), features)
