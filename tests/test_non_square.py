"""Images that are no squares, from the recipe to the bundle on a device."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.commands import run_command
from tests.data.mixed_images import make_images

pytestmark = pytest.mark.slow

RECIPE = """
name = "wide"
[data]
source = "imagefolder"
path = "images"
image_size = [10, 16]
resize = [12, 18]
cache_dir = "cache"
loading = "files"
workers = 0
random_resized_crop = [0.5, 1.0]
horizontal_flip = true
validation_fraction = 0.25
[augment]
cutmix = 1.0
random_erasing = 0.25
[student]
name = "resnet8"
[method]
kernels = 2
[train]
epochs = 2
batch_size = 8
[export]
formats = ["onnx", "onnx-int8", "torchscript"]
preprocessing = "full"
[export.int8]
count = 8
[profile]
min_seconds = 0.05
max_seconds = 0.5
warmup_seconds = 0.0
[gate]
min_top1 = 0.05
p90_ms_max = 1000.0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("wide")
    make_images(root / "images", train=12, test=6)
    (root / "wide.toml").write_text(RECIPE)
    ended = run_command(["run", "wide.toml", "--out", "run"], cwd=root)
    assert ended.code in {0, 3}, ended.out + ended.err
    assert "max_abs_diff onnx" in ended.out
    return root


def test_every_result_speaks_of_height_and_width(folder: Path) -> None:
    read = {name: json.loads((folder / "run" / f"{name}.json").read_text()) for name in ("split", "profile")}
    assert read["split"]["example_shape"][-2:] == [10, 16]
    assert read["profile"]["measurement"]["model"]["input_shape"] == [1, 24, 36, 3]
    card = (folder / "run/MODEL_CARD.md").read_text()
    assert "scaled to fill 12 x 18 pixels (bilinear, antialiased), then the middle 10 x 16 cut out" in card


def test_any_image_is_evaluated_and_classified_as_by_the_run(folder: Path) -> None:
    command = ["evaluate", "run/exports/student.onnx", "--data", "images/test", "--out", "evaluated"]
    ended = run_command(command, cwd=folder)
    assert ended.code == 0, ended.err
    found = json.loads((folder / "evaluated/evaluation.json").read_text())
    validated = json.loads((folder / "run/validation.json").read_text())
    # onnxruntime resizes the photos here, Pillow resized those of the run
    assert abs(found["correct"] - validated["onnx_top1"]["candidate"]["correct"]) <= 1
    bundled = run_command(["bundle", "run", "--format", "onnx", "--out", "wide.tar.gz"], cwd=folder)
    assert bundled.code == 0, bundled.err
    with tarfile.open(folder / "wide.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    photo = next((folder / "images/test").rglob("*.jpg"))
    for words in (["--no-latency"], [photo]):
        done = subprocess.run(
            [sys.executable, "run.py", *words], cwd=folder / "wide-onnx", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    predicted = run_command(["predict", "run", photo, "--top", "1", "--json"], cwd=folder)
    (entry,) = json.loads(predicted.out)
    assert done.stdout.split(": ")[1].startswith(entry["classes"][0]["name"] + " ")


def test_nothing_but_the_size_is_needed_before_a_run(folder: Path) -> None:
    inspected = run_command(["inspect", "resnet8", "--image-size", "10x16", "--kernels", "2"], cwd=folder)
    assert inspected.code == 0, inspected.err
    assert "for images of 3x10x16" in inspected.out
    refused = run_command(["inspect", "resnet8", "--image-size", "10x"], cwd=folder)
    assert (refused.code, refused.out) == (2, "")
    assert "--image-size 10x: expected HEIGHTxWIDTH in pixels" in refused.err
    rehearsed = run_command(["rehearse", "wide.toml"], cwd=folder)
    assert rehearsed.code == 0, rehearsed.err
