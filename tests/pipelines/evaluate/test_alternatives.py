from __future__ import annotations

from pathlib import Path

import pytest

from ecd_deploy.pipelines.evaluate.evaluate import evaluate
from ecd_deploy.recipe.input import InputConfig
from tests.commands import run_command
from tests.pipelines.evaluate.colours import INPUT, MEAN, STD, save_images, write_model

RIGHT = {"mean": MEAN, "std": STD}
NONE = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.mark.parametrize(
    ("model", "wrong", "named"),
    [
        ({}, {**RIGHT, "channels": "bgr"}, 'channels = "rgb"'),
        ({"factor": 1 / 255, "bias": (1.0, 0.0, 0.0)}, NONE, "pixels of 0..255"),
        ({"factor": 1.0, "bias": (0.0, 0.0, -0.5)}, {**NONE, "scale": 1e-3}, "pixels of 0..1"),
        ({"bias": (0.0, 9.0, 0.0), "factor": 9.0}, {**NONE, "scale": 1e-3}, "pixels of -1..1"),
    ],
    ids=["bgr", "0..255", "0..1", "-1..1"],
)
def test_a_usual_mistake_is_named(
    tmp_path: Path, model: dict[str, object], wrong: dict[str, object], named: str
) -> None:
    images = save_images(tmp_path / "images", each=20)
    path = write_model(tmp_path / "model.onnx", **model)  # type: ignore[arg-type]
    found = evaluate(path, images, InputConfig.model_validate(wrong)).evaluation
    assert found.top1 < 0.6
    assert any(named in warning for warning in found.warnings), found.warnings


def test_what_is_right_is_not_doubted(tmp_path: Path) -> None:
    images, model = save_images(tmp_path / "images", each=20), write_model(tmp_path / "model.onnx")
    assert evaluate(model, images, InputConfig.model_validate(RIGHT)).evaluation.warnings == ()


def test_few_images_prove_no_mistake(tmp_path: Path) -> None:
    images, model = save_images(tmp_path / "images", each=2), write_model(tmp_path / "model.onnx")
    wrong = InputConfig.model_validate({**RIGHT, "channels": "bgr"})
    assert evaluate(model, images, wrong).evaluation.warnings == ()


def test_the_command_says_so(tmp_path: Path) -> None:
    save_images(tmp_path / "images", each=20)
    write_model(tmp_path / "model.onnx")
    (tmp_path / "gate.toml").write_text(INPUT)
    words = ["evaluate", "model.onnx", "--data", "images", "--config", "gate.toml", "--set", "input.channels=bgr"]
    ended = run_command(words, cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert 'Warning: of 60 images 80.0% are right with channels = "rgb"' in ended.out
