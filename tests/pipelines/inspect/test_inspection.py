from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from ecd_deploy.cli.text.inspection import print_inspection
from ecd_deploy.errors import StudentError
from ecd_deploy.pipelines.inspect.inspection import Inspection, inspect_student
from ecd_deploy.pipelines.inspect.subject import Subject, read_subject
from ecd_deploy.recipe.method import MethodConfig
from tests.commands import run_command


def one_stage(num_classes: int, in_channels: int) -> nn.Module:
    layers = [nn.Conv2d(width, 4, 3, padding=1) for width in (in_channels, 4, 4)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))


def printed(found: Inspection, *, every: bool = False, width: int = 120) -> str:
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        print_inspection(found, console, every_convolution=every)
    return captured.get()


def inspected(name: str, *changes: str) -> Inspection:
    return inspect_student(read_subject(name, overrides=changes, options={}, in_channels=None))


def shown(name: str, *, every: bool = False, stages: str = "", width: int = 120) -> str:
    small = ("student.num_classes=10", "data.image_size=64", "method.kernels=2")
    return printed(inspected(name, *small, *([stages] if stages else [])), every=every, width=width)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("timm:mobilenetv3_small_050", ["to 3.1", "5x5 depthwise", "DepthwiseSeparableCo"]),
        ("timm:tf_efficientnet_b0", ["3x3 depthwise /2", "InvertedResidual"]),
        ("torchvision:densenet121", ["denselayer12 (12)", "_DenseLayer"]),
        ("timm:test_convnext", ["to 3 (4)", "7x7 depthwise"]),
        ("torchvision:regnet_x_400mf", ["trunk_output.block1.block1-0", "3x3 groups", "ResBottleneckBlock"]),
    ],
)
def test_long_networks_are_grouped_by_block(name: str, lines: list[str]) -> None:
    text = shown(name)
    for line in lines:
        assert line in text
    assert "…" not in text
    assert re.search(r"\d [kM] *\n", text)
    assert len(text.splitlines()) < 45
    assert max(map(len, text.splitlines())) <= 120


def test_everything_is_listed_on_request() -> None:
    text = shown("resnet8", every=True, stages="method.stages=[3]")
    assert re.search(r"layer1\.0\.conv1 +3x3 +16x64x64 +dynamic +2,304 -> \d,\d{3} +9\.4 M", text)
    assert re.search(r"conv1 +3x3 +16x64x64 +kept: it is outside the blocks", text)
    assert re.search(r"layer2\.0\.shortcut\.0 +1x1 /2 +32x32x32 +kept: its kernel is 1x1", text)
    assert re.search(r"layer2\.0\.conv2 +convolution +3 +32x32x32", text)
    assert not re.search(r"layer1\.0\.conv2 +convolution +2", text)


def test_amounts_are_those_of_the_networks() -> None:
    text = shown("resnet20")
    # A ResNet-20 has 272,474 parameters with projections and 40.8 M MACs at 32x32 pixels: four times at 64x64.
    assert re.search(r"parameters +272,474 ", text)
    assert re.search(r"MACs per image +163\.\d M", text)
    assert "at 18 sites in stages 2, 3" in text


@pytest.mark.parametrize("every", [False, True])
def test_no_name_and_no_number_is_cut_off_in_a_narrow_terminal(every: bool) -> None:
    text = shown("torchvision:regnet_y_400mf", every=every, width=80)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"trunk_output\.block3\.block3-1\S* .* [kM] *\n", text)


def test_a_stage_that_does_not_exist() -> None:
    with pytest.raises(StudentError, match="no stage 9"):
        inspect_student(Subject(student="resnet8", classes=10, method=MethodConfig(stages=(9,))))


def test_stages_that_nobody_named_are_left_out_where_the_student_lacks_them() -> None:
    assert {site.stage for site in inspected(f"{__name__}:one_stage").sites} == {2}
    with pytest.raises(StudentError, match="no stage 3"):
        inspected(f"{__name__}:one_stage", "method.stages=[2, 3]")


def test_the_random_state_of_the_student_is_fixed() -> None:
    torch.manual_seed(5)
    subject = Subject(student="resnet8", classes=10, image_size=16, method=MethodConfig(kernels=2))
    assert inspect_student(subject).memory == inspect_student(subject).memory


def test_sites_by_pattern_are_listed() -> None:
    text = printed(inspected("resnet8", 'method.sites=["layer2.*.conv1", "conv1"]'))
    assert "sites layer2.*.conv1, conv1" in text
    assert re.search(r"layer2\.0\.conv1 +convolution +3 +32x16x16", text)
    assert re.search(r"conv1 +module +outside +16x32x32", text)
    assert re.search(r"outside the blocks +1 module ", text)
    assert "at 2 sites in stage 3 and outside" in text


def test_a_connection_and_its_density_cost_what_they_have() -> None:
    def connections(*changes: str) -> tuple[int, int]:
        found = inspected("resnet8", "data.image_size=8", "method.kernels=2", *changes)
        part = next(part for part in found.parts if part.name == "connections")
        return part.parameters, part.macs

    # Of a ResNet-8 two convolutions and the block of 16 channels at 8x8 pixels, then of 32 at 4x4, are connected.
    assert connections("method.connection=direct") == (0, 0)
    assert connections() == (3 * (16**2 + 32**2), 3 * (16**2 * 64 + 32**2 * 16))
    assert connections("method.connection=conv1x1_bn")[0] == 3 * (16**2 + 32**2) + 2 * 3 * (16 + 32)
    before = [16, 32, 48, 80, 112, 144]
    assert connections("method.density=dense")[0] == sum(
        width * own for width, own in zip(before, [16] * 3 + [32] * 3, strict=True)
    )


@pytest.mark.parametrize(
    ("changes", "lines", "absent"),
    [
        (["method.name=plain"], ["method plain: the student alone"], ["teacher", "connected", "kernels"]),
        (["method.name=joint", "method.logits=mutual"], ["no connections", "losses between the heads: logits mutual"],
         ["connected"]),
        (["method.name=joint", "method.features=stage"], ["compared after layer1.0, layer2.0, layer3.0"], []),
        (["method.logits=ensemble"], ["ensemble"], []),
        (["method.teacher=cbam"], ["teacher cbam;"], ["backend", "kernels at"]),
        (["method.name=one", "method.branches=4"], ["4 branches", "from layer3.0 on", "3 other branches", "gate"],
         ["teacher"]),
        (["method.name=distil", "method.pretrained.run=absent", 'method.pretrained.losses=["kd", "at"]'],
         ["method distil: the student alone", "not counted: the pretrained teacher, its losses (kd, at)"], []),
        (["method.pretrained.run=absent", 'method.pretrained.losses=["kd"]'],
         ["method ecd: teacher daconv", "not counted: the pretrained teacher"], []),
        (["train.mixed_precision=bf16"], ["mixed precision 'bf16' is not counted"], []),
    ],
)  # fmt: skip
def test_each_system_is_shown(changes: list[str], lines: list[str], absent: list[str]) -> None:
    found = inspected("resnet8", "data.image_size=8", *changes)
    text = printed(found)
    for line in lines:
        assert line in text
    for line in absent:
        assert line not in text
    replaced = found.report is not None and found.report.options.teacher == "daconv"
    assert bool(found.memory.kernels) == replaced == ("per-sample kernels" in text)


def test_what_the_copies_of_one_are_given_costs_nothing() -> None:
    found = inspected("resnet8", "data.image_size=8", "method.name=one", "method.branches=4")
    branches = next(part for part in found.parts if part.name == "branches")
    # Each runs the last stage, from 32x4x4 to 64x2x2, and a classifier of 10.
    stage = 2 * 2 * (9 * 32 * 64 + 9 * 64 * 64 + 32 * 64)
    classes = found.subject.classes
    assert branches.macs == 3 * (stage + 64 * classes)
    frozen = 3 * sum(
        parameter.numel()
        for name, parameter in found.student.named_parameters()
        if name in ("conv1.weight", "bn1.weight", "bn1.bias")
    )
    assert found.memory.parameters - found.memory.trained == 4 * frozen


def test_the_parts_of_a_batch_are_what_is_held() -> None:
    whole, parts = ("train.batch_size=100",), ("train.batch_size=100", "train.gradient_accumulation=3")
    assert "a step at batch 100, in 3 parts of at most 34" in printed(inspected("resnet8", *parts))
    held = inspected("resnet8", *whole).memory.total(34)
    size = re.search(r"at most 34 +([\d.]+) MiB", printed(inspected("resnet8", *parts)))
    assert size is not None
    assert float(size[1]) == pytest.approx(held / 2**20, abs=0.1)


def test_the_command(tmp_path: Path) -> None:
    options = ["--image-size", "8", "--in-channels", "1", "--kernels", "2", "--stages", "2,4", "--all"]
    ended = run_command(["inspect", "resnet8", *options], cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "resnet8 for images of 1x8x8" in ended.out
    assert "sites in stages 2, 4" in ended.out
    assert "training memory at batch 128, backend grouped" in ended.out


def test_the_command_takes_a_recipe_and_changes_of_it(tmp_path: Path) -> None:
    changes = ["--set", "method.backend=chunked", "--batch-size", "16", "--set", 'method.sites=["layer1.*"]']
    ended = run_command(["inspect", "digits", *changes], cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "digits: resnet8 for images of 1x8x8, 10 classes" in ended.out
    assert re.search(r"layer1\.0 +block +2 +16x8x8", ended.out)
    assert "training memory at batch 16, backend chunked" in ended.out
    assert re.search(r"a chunk of per-sample kernels, with gradients, at one time +\d", ended.out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stages", "two"], "--stages two: expected stage numbers"),
        (["--set", "method.kernles=3"], "unknown key (did you mean 'kernels'?); known keys are name, teacher"),
        (["--set", "method.backend=chuncked"], "method.backend: Input should be 'grouped', 'chunked' or 'triton'"),
    ],
)
def test_the_command_refuses(tmp_path: Path, options: list[str], message: str) -> None:
    ended = run_command(["inspect", "resnet8", *options], cwd=tmp_path)
    assert ended.code == 2
    assert message in ended.err
