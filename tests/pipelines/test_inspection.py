from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

from ecd_deploy.errors import StudentError
from ecd_deploy.pipelines.inspection import inspect_student
from ecd_deploy.pipelines.inspection_text import print_inspection
from tests.commands import run_command


def shown(name: str, *, every: bool = False, stages: tuple[int, ...] = ()) -> str:
    console = Console(width=120, highlight=False)
    with console.capture() as captured:
        found = inspect_student(name, classes=10, image_size=64, kernels=2, stages=stages)
        print_inspection(found, console, every_convolution=every)
    return captured.get()


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
    text = shown("resnet8", every=True, stages=(3,))
    assert re.search(r"layer1\.0\.conv1 +3x3 +16x64x64 +dynamic +2,304 -> \d,\d{3} +9\.4 M", text)
    assert re.search(r"conv1 +3x3 +16x64x64 +kept: it is outside the blocks", text)
    assert re.search(r"layer2\.0\.shortcut\.0 +1x1 /2 +32x32x32 +kept: its kernel is 1x1", text)
    assert re.search(r"layer2\.0\.conv2 +convolution +3 +32x32x32", text)
    assert not re.search(r"layer1\.0\.conv2 +convolution +2", text)


def test_amounts_are_those_of_the_networks() -> None:
    text = shown("resnet20")
    # A ResNet-20 has 272,474 parameters with projections and 40.8 M MACs at 32x32 pixels: four times at 64x64.
    assert re.search(r"parameters +272,474 ", text)
    assert re.search(r"MACs of an image +163\.\d M", text)
    assert "at 18 sites in stages 2, 3" in text


def test_a_stage_that_does_not_exist() -> None:
    with pytest.raises(StudentError, match="no stage 9"):
        inspect_student("resnet8", classes=10, stages=(9,))


def test_the_random_state_of_the_student_is_fixed() -> None:
    torch.manual_seed(5)
    first = inspect_student("resnet8", classes=10, image_size=16, kernels=2).memory
    assert first == inspect_student("resnet8", classes=10, image_size=16, kernels=2).memory


def test_the_command(tmp_path: Path) -> None:
    options = ["--image-size", "8", "--in-channels", "1", "--kernels", "2", "--stages", "2,4", "--all"]
    ended = run_command(["inspect", "resnet8", *options], cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "resnet8 for images of 1x8x8" in ended.out
    assert "sites in stages 2, 4" in ended.out
    wrong = run_command(["inspect", "resnet8", "--stages", "two"], cwd=tmp_path)
    assert wrong.code == 2
    assert "--stages two: expected numbers" in wrong.err
