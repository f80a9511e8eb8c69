from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from ecd_deploy.distill import DynamicConv2d, ECDModel, TeacherOptions, build_teacher
from ecd_deploy.errors import StudentError
from ecd_deploy.models import build_student


def test_report_for_resnet20() -> None:
    student = build_student("resnet20", num_classes=10)
    teacher, report = (made := build_teacher(student, TeacherOptions(kernels=4))).module, made.report
    assert len(report.structure.blocks) == 9
    assert [entry.name for entry in report.replaced] == [
        f"layer{stage}.{block}.conv{conv}" for stage in (1, 2, 3) for block in range(3) for conv in (1, 2)
    ]
    assert [entry.stage for entry in report.replaced] == [2] * 6 + [3] * 6 + [4] * 6
    assert report.replaced[0].block == "layer1.0"
    assert {entry.kernel_size for entry in report.replaced} == {(3, 3)}
    assert [(entry.name, entry.reason) for entry in report.skipped] == [
        ("conv1", "it is outside the blocks"),
        ("layer2.0.shortcut.0", "its kernel is 1x1"),
        ("layer3.0.shortcut.0", "its kernel is 1x1"),
    ]
    dynamic = {name for name, module in teacher.named_modules() if isinstance(module, DynamicConv2d)}
    assert dynamic == {entry.name for entry in report.replaced}


def test_parameter_counts_of_the_report() -> None:
    student = build_student("resnet8", num_classes=10)
    report = build_teacher(student, TeacherOptions(kernels=4)).report
    # A router of 16 inputs has 4 hidden units: 16*4 + 4 and 4*4 + 4; the kernels are four of 16x16x3x3.
    assert report.replaced[0].parameters == 4 * 16 * 16 * 9 + 68 + 20
    kernels = sum(conv.numel() for name, conv in student.named_parameters() if ".conv" in name)
    routers = sum(entry.parameters for entry in report.replaced) - 4 * kernels
    assert report.student_parameters == sum(parameter.numel() for parameter in student.parameters())
    assert report.teacher_parameters == report.student_parameters + 3 * kernels + routers


def test_resnet164_has_only_its_3x3_convolutions_replaced() -> None:
    report = build_teacher(build_student("resnet164", num_classes=10), TeacherOptions(kernels=2)).report
    assert len(report.replaced) == 54
    assert all(entry.name.endswith("conv2") for entry in report.replaced)


def test_torchvision_students() -> None:
    report = build_teacher(build_student("torchvision:resnet18", num_classes=10), TeacherOptions(kernels=2)).report
    assert len(report.replaced) == 16
    assert {entry.name for entry in report.skipped} == {"conv1", *(f"layer{n}.0.downsample.0" for n in (2, 3, 4))}
    mobile = build_teacher(build_student("torchvision:mobilenet_v2", num_classes=10), TeacherOptions(kernels=2))
    assert len(mobile.report.replaced) == 17
    assert "features.0.0" in {entry.name for entry in mobile.report.skipped}
    first = mobile.module.get_submodule("features.1.conv.0.0")
    assert isinstance(first, DynamicConv2d)
    assert first.groups == 32


def test_teacher_shares_no_storage_and_no_random_value_with_the_student() -> None:
    torch.manual_seed(0)
    student = build_student("resnet8", num_classes=10)
    teacher = build_teacher(student, TeacherOptions(kernels=3)).module
    storages = {tensor.untyped_storage().data_ptr() for tensor in student.state_dict().values()}
    assert all(tensor.untyped_storage().data_ptr() not in storages for tensor in teacher.state_dict().values())
    drawn = 0
    for name, parameter in student.named_parameters():
        counterpart = teacher.get_parameter(name)
        if parameter.numel() > 1 and parameter.std() > 0:
            drawn += 1
            assert not (counterpart == parameter).any(), name
            spread = cast("float", counterpart.std().item())
            assert spread == pytest.approx(parameter.std().item(), rel=0.25), name
        else:
            assert torch.equal(counterpart, parameter), name
    assert drawn == 10  # stem, 6 convolutions, 2 shortcuts, the classifier's weight


def test_a_trained_student_gives_a_teacher_with_fresh_statistics() -> None:
    student = build_student("resnet8", num_classes=10).train()
    student(torch.randn(8, 3, 16, 16))
    teacher = build_teacher(student, TeacherOptions(kernels=2)).module
    norm = teacher.get_submodule("layer1.0.bn1")
    assert torch.equal(norm.get_buffer("running_mean"), torch.zeros(16))
    assert int(norm.get_buffer("num_batches_tracked")) == 0
    assert int(student.get_submodule("layer1.0.bn1").get_buffer("num_batches_tracked")) == 1


def test_the_student_is_not_changed() -> None:
    student = build_student("resnet8", num_classes=10)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    build_teacher(student, TeacherOptions(kernels=2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())
    assert not any(isinstance(module, DynamicConv2d) for module in student.modules())


def test_options_reach_every_dynamic_convolution() -> None:
    student = build_student("resnet8", num_classes=10).double()
    teacher = build_teacher(student, TeacherOptions(kernels=5, reduction=2, temperature=3.0, backend="chunked")).module
    layers = [module for module in teacher.modules() if isinstance(module, DynamicConv2d)]
    assert {(layer.kernels, float(layer.temperature), layer.backend) for layer in layers} == {(5, 3.0, "chunked")}
    assert {layer.reduce.out_features for layer in layers} == {8, 16, 32}
    assert {parameter.dtype for parameter in teacher.parameters()} == {torch.float64}


class OwnConv(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(2 * input)


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own = OwnConv(4, 4, 3, padding=1)
        self.plain = nn.Conv2d(4, 4, 3, padding=1)
        self.unused = nn.Conv2d(4, 4, 3, padding=1)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3, padding=1))

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = self.normed(self.plain(self.own(features)))
        return output


def network(*blocks: nn.Module) -> nn.Module:
    stem = nn.Conv2d(3, 4, 3, padding=1)
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def test_what_may_not_be_an_ordinary_convolution_is_skipped_with_its_reason() -> None:
    report = build_teacher(network(Mixed()), TeacherOptions(kernels=2)).report
    reasons = {entry.name: entry.reason for entry in report.skipped}
    assert [entry.name for entry in report.replaced] == ["1.plain"]
    assert "OwnConv" in reasons["1.own"]
    assert "Parametrized" in reasons["1.normed"]
    assert reasons["1.unused"] == "it is never called"


def test_hooks_on_a_convolution_keep_it() -> None:
    student = build_student("resnet8", num_classes=10)
    student.get_submodule("layer1.0.conv1").register_forward_hook(lambda _m, _i, output: -output)
    report = build_teacher(student, TeacherOptions(kernels=2)).report
    assert {entry.name: entry.reason for entry in report.skipped}["layer1.0.conv1"].startswith("it has hooks")


class Twice(nn.Module):
    """Holds one convolution under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.inner = nn.Sequential(self.first, nn.Conv2d(4, 4, 1))

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = self.inner(self.first(features))
        return output


def test_a_convolution_held_twice_is_replaced_in_both_places() -> None:
    model = ECDModel(network(Twice()), TeacherOptions(kernels=2), stages=(2,))
    assert model.teacher.get_submodule("1.first") is model.teacher.get_submodule("1.inner.0")
    assert isinstance(model.teacher.get_submodule("1.first"), DynamicConv2d)
    assert model(torch.randn(2, 3, 32, 32))[1].shape == (2, 3)


def test_nothing_to_replace() -> None:
    with pytest.raises(StudentError, match=r"no convolution of the student can be replaced \(0: it is outside"):
        build_teacher(network(nn.ReLU()))
