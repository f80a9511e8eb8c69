"""A model that brings images of any size to its own: given as they are, one at a time."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from PIL import Image

from ecd_deploy.errors import UsageError
from ecd_deploy.exporters.files.metadata import ArtefactMetadata
from ecd_deploy.exporters.onnx.graph import set_metadata
from ecd_deploy.exporters.preprocessing import put_preprocessing_inside
from ecd_deploy.pipelines.bundle.model import bundle_model
from ecd_deploy.pipelines.evaluate.evaluate import evaluate
from ecd_deploy.pipelines.evaluate.predict import predict
from ecd_deploy.pipelines.steps.measure import profile_bytes
from ecd_deploy.recipe.input import ModelConfig
from ecd_deploy.recipe.profile import ProfileConfig
from tests.commands import run_command
from tests.pipelines.evaluate.colours import CLASSES, MEAN, SIDE, STD, draw, write_model

RESIZE = 10


def write_full(path: Path) -> Path:
    """The classifier of colours as this project exports it with full preprocessing."""
    model = onnx.load_model(write_model(path, softmax=False))
    names = {"pixels": "images", "scores": "logits", "logits": "sums"}
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    model.graph.input[0].name, model.graph.output[0].name = "images", "logits"
    metadata = ArtefactMetadata(
        student="colours",
        classes=CLASSES,
        input_shape=(3, SIDE, SIDE),
        resize=RESIZE,
        mean=MEAN,
        std=STD,
        preprocessing="full",
        recipe_digest="a" * 64,
    )
    put_preprocessing_inside(model, metadata)
    set_metadata(model, metadata.model_dump_json())
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in CLASSES:
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number, size in enumerate(((40, 30), (17, 23), (8, 8), (100, 9))):
            Image.fromarray(draw(name, number)).resize(size).save(folder / f"{number}.png")
    return tmp_path / "photos"


def test_images_of_several_sizes_are_evaluated_by_the_graph_itself(tmp_path: Path, photos: Path) -> None:
    found = evaluate(write_full(tmp_path / "full.onnx"), photos)
    assert found.evaluation.top1 == 1.0
    assert found.classifier.batch_size == 1
    assert found.evaluation.model.output == "logits"
    assert "cut out, by the model itself" in found.evaluation.preprocessing.words()
    said = {"mean": list(MEAN), "std": list(STD), "resize": RESIZE}
    outside = tmp_path / "config.toml"
    outside.write_text("[input]\n" + "".join(f"{key} = {value}\n" for key, value in said.items()))
    write_model(tmp_path / "outside.onnx")
    ended = run_command(
        ["evaluate", "outside.onnx", "--data", photos, "--config", outside, "--out", "other"], cwd=tmp_path
    )
    assert ended.code == 0, ended.err
    by_pillow = json.loads((tmp_path / "other" / "evaluation.json").read_text())
    assert by_pillow["mean_confidence"] == pytest.approx(found.evaluation.mean_confidence, abs=0.01)


def test_photos_are_classified_and_timed(tmp_path: Path, photos: Path) -> None:
    model = write_full(tmp_path / "full.onnx")
    found = predict(model, [photos / name / f"{number}.png" for name in CLASSES for number in range(4)])
    assert [each.classes[0].name for each in found] == [name for name in CLASSES for _ in range(4)]
    config = ProfileConfig(min_seconds=0.05, warmup_seconds=0.0)
    measured = profile_bytes("full.onnx", model.read_bytes(), config).measurement
    assert measured.model.input_shape == (1, 2 * RESIZE, 2 * RESIZE, 3)


def test_such_a_model_is_bundled_with_its_run_alone(tmp_path: Path, photos: Path) -> None:
    model = write_full(tmp_path / "full.onnx")
    with pytest.raises(UsageError, match="bundle its run directory"):
        bundle_model(model, photos, ModelConfig(), tmp_path / "full.tar.gz")
