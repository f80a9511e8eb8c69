"""How images were resized is told wherever a student is handed on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecd_deploy.data import load_data
from ecd_deploy.distill import PlainModel
from ecd_deploy.exporters import exporter_for
from ecd_deploy.models import build_student
from ecd_deploy.pipelines.evaluate.predict import predict
from ecd_deploy.pipelines.steps.export import export_all
from ecd_deploy.pipelines.steps.train import example_images
from ecd_deploy.recipe.recipe import load_recipe
from ecd_deploy.split import split_student
from tests.commands import Ended

SCRIPT = Path(__file__).parents[3] / "docs" / "run_student.py"


def exported(*overrides: str) -> bytes:
    """A student for these images in the first format of the recipe."""
    recipe = load_recipe("digits", ("data.test_limit=20", *overrides))
    data = load_data(recipe.data, seed=0)
    student = split_student(PlainModel(build_student("resnet8", num_classes=10, in_channels=1)), example_images(data))
    return next(export_all(recipe, student, data)).data


def run_student(folder: Path, shape: tuple[int, ...]) -> Ended:
    np.save(folder / "images.npy", np.zeros(shape, dtype=np.uint8))
    command = [sys.executable, str(SCRIPT), str(folder / "student.onnx"), str(folder / "images.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("preprocessing", "sizes"),
    [
        ("outside", ("data.image_size=10", "data.resize=12")),
        ("outside", ("data.image_size=[9, 13]", "data.resize=[10, 16]")),
        ("full", ("data.image_size=10", "data.resize=12")),
    ],
)
def test_the_script_classifies_image_files_as_predict_does(
    tmp_path: Path, preprocessing: str, sizes: tuple[str, ...]
) -> None:
    content = exported('export.formats=["onnx"]', f"export.preprocessing={preprocessing}", *sizes)
    (tmp_path / "student.onnx").write_bytes(content)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 40, 30, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.jpg")
    paths = [tmp_path / f"{number}.jpg" for number in range(4)]
    command = [sys.executable, str(SCRIPT), str(tmp_path / "student.onnx"), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = [entry.classes[0].name for entry in predict(tmp_path / "student.onnx", paths, top=1)]
    assert done.stdout.split() == expected


def test_without_pillow_the_script_says_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "student.onnx").write_bytes(exported('export.formats=["onnx"]'))
    code = f"import runpy, sys; sys.modules['PIL'] = None; sys.argv = {[str(SCRIPT), 'student.onnx', 'a.jpg']}; "
    code += f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install pillow" in done.stderr


@pytest.mark.parametrize(
    ("overrides", "resize", "words"),
    [
        ((), None, "8 x 8 pixels (height x width) as they are"),
        (("data.image_size=10", "data.resize=12"), 12, "the shorter side scaled to 12 pixels"),
    ],
)
def test_the_artefact_says_so_and_the_script_takes_no_other_size(
    tmp_path: Path, overrides: tuple[str, ...], resize: int | None, words: str
) -> None:
    content = exported('export.formats=["onnx"]', *overrides)
    (tmp_path / "student.onnx").write_bytes(content)
    metadata = exporter_for("onnx", load_recipe("digits").export).read_metadata(content)
    assert metadata.resize == resize
    assert metadata.framing.startswith(words)
    done = run_student(tmp_path, (2, *metadata.input_shape))
    assert done.code == 0, done.err
    refused = run_student(tmp_path, (2, 1, 32, 32))
    assert refused.code == 1
    assert f"images of [1, 32, 32], the model takes {list(metadata.input_shape)}" in refused.err
    assert ("scale the shorter side to 12 pixels and cut the middle out" in refused.err) is (resize is not None)
    assert "Traceback" not in refused.err


def test_a_size_that_is_set_alone_is_what_the_shorter_side_was_scaled_to() -> None:
    content = exported('export.formats=["safetensors", "onnx"]', "data.image_size=10")
    assert exporter_for("safetensors", load_recipe("digits").export).read_metadata(content).resize == 10


def test_the_model_card_says_how_images_are_brought_to_size(finished_run: tuple[Path, Ended]) -> None:
    card = (finished_run[0] / "MODEL_CARD.md").read_text()
    assert "| images | 8 x 8 pixels (height x width) as they are |" in card
