from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from ecd_deploy.errors import ArtefactError
from ecd_deploy.files import sha256_bytes
from ecd_deploy.pipelines.evaluate import target as reading
from ecd_deploy.pipelines.evaluate.predict import predict
from ecd_deploy.pipelines.evaluate.target import read_target
from ecd_deploy.recipe.input import InputConfig
from tests.commands import Ended, run_command
from tests.pipelines.evaluate.colours import INPUT, MEAN, STD, draw, expected_probabilities, save_images, write_model


@pytest.fixture
def digit(tmp_path: Path) -> Path:
    """The picture of a zero, as large as the students of the digits take it; `large.jpg` is of another size."""
    picture = Image.fromarray(np.rint(load_digits().images[0] * 255 / 16).astype(np.uint8))
    picture.resize((40, 32)).save(tmp_path / "large.jpg")
    picture.save(tmp_path / "zero.png")
    return tmp_path / "zero.png"


def packed(run: Path, folder: Path, *, damaged: bool = False) -> Path:
    """What a bundle holds of a run's model, as an archive."""
    model = (run / "exports/student.onnx").read_bytes()
    files = {"student.onnx": model, "bundle.json": b'{"schema_version": 1, "model": "student.onnx"}'}
    files["SHA256SUMS"] = "".join(f"{sha256_bytes(data)}  {name}\n" for name, data in files.items()).encode()
    if damaged:
        files["student.onnx"] = model[:-1] + b"x"
    place = folder / "digits-onnx"
    place.mkdir()
    for name, data in files.items():
        (place / name).write_bytes(data)
    with tarfile.open(folder / "digits-onnx.tar.gz", "w:gz") as archive:
        archive.add(place, "digits-onnx")
    return place


def test_a_model_a_run_and_a_bundle_give_the_same_classes(
    finished_run: tuple[Path, Ended], digit: Path, tmp_path: Path
) -> None:
    run = finished_run[0]
    bundle = packed(run, tmp_path)
    targets = (run, run / "exports/student.onnx", bundle, bundle.with_suffix(".tar.gz"))
    ended = [
        run_command(["predict", target, digit, "large.jpg", "--top", "3", "--json"], cwd=tmp_path) for target in targets
    ]
    assert {entry.code for entry in ended} == {0}, [entry.err for entry in ended]
    assert len({entry.out for entry in ended}) == 1
    found, large = json.loads(ended[0].out)
    assert found["image"] == str(digit)
    assert found["classes"][0]["name"] == "0"
    assert len(found["classes"]) == len(large["classes"]) == 3
    assert "brought to the model's" in ended[0].err


def test_a_damaged_bundle_is_refused(finished_run: tuple[Path, Ended], digit: Path, tmp_path: Path) -> None:
    bundle = packed(finished_run[0], tmp_path, damaged=True)
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(bundle.with_suffix(".tar.gz").read_bytes()[:-200])
    for target in (bundle, bundle.with_suffix(".tar.gz"), cut):
        ended = run_command(["predict", target, digit], cwd=tmp_path)
        assert (ended.code, ended.out) == (4, ""), ended.err


def test_a_changed_run_is_refused(finished_run: tuple[Path, Ended], digit: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished_run[0], tmp_path / "run"))
    (run / "exports/student.onnx").write_bytes(b"changed")
    ended = run_command(["predict", run, digit], cwd=tmp_path)
    assert ended.code == 4
    assert "was changed" in ended.err


def test_the_text_names_the_most_probable_classes_first(tmp_path: Path) -> None:
    Image.fromarray(draw("red", 0)).save(tmp_path / "red.png")
    write_model(tmp_path / "model.onnx")
    (tmp_path / "gate.toml").write_text(f'{INPUT}classes = "names.txt"\n')
    (tmp_path / "names.txt").write_text("blue\ngreen\nred\n")
    ended = run_command(["predict", "model.onnx", "red.png", "--config", "gate.toml"], cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert ended.out.startswith("red.png: red ")


def test_the_probabilities_are_those_of_an_evaluation(tmp_path: Path) -> None:
    images, model = save_images(tmp_path / "images", each=2), write_model(tmp_path / "model.onnx")
    paths = [images / name / f"{number}.png" for name in ("blue", "green", "red") for number in range(2)]
    found = predict(model, paths, InputConfig(mean=MEAN, std=STD), top=3)
    ranked = [sorted(entry.classes, key=lambda choice: choice.name) for entry in found]
    given = [[choice.probability for choice in choices] for choices in ranked]
    np.testing.assert_allclose(given, expected_probabilities(2), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("model.onnx", "absent.png"), 4, "absent.png: not a file"),
        (("model.onnx", "gate.toml"), 4, "gate.toml: not an image"),
        (("absent.onnx", "red.png"), 2, "there is no file absent.onnx"),
        (("empty", "red.png"), 2, "neither a run directory"),
        (("model.onnx",), 2, "IMAGE"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    Image.fromarray(draw("red", 0)).save(tmp_path / "red.png")
    write_model(tmp_path / "model.onnx")
    (tmp_path / "gate.toml").write_text(INPUT)
    (tmp_path / "empty").mkdir()
    ended = run_command(["predict", *arguments, "--config", "gate.toml"], cwd=tmp_path)
    assert (ended.code, ended.out) == (code, ""), ended.err
    assert said in ended.err


@pytest.mark.parametrize(
    ("description", "said"),
    [
        (b'{"model": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "names no model"),
        (b'{"schema_version": 1, "model": "../model.onnx"}', "outside of it"),
        (b'{"schema_version": 1, "model": "/model.onnx"}', "outside of it"),
        (b'{"schema_version": 2, "model": "model.onnx"}', "schema_version of bundle.json is 2, and 1 is read"),
        (b'{"model": "model.onnx"}', "schema_version of bundle.json is None, and 1 is read"),
    ],
)
def test_a_bundle_that_names_no_file_of_its_own_is_refused(tmp_path: Path, description: bytes, said: str) -> None:
    place = tmp_path / "bundle"
    place.mkdir()
    write_model(tmp_path / "model.onnx")
    (place / "bundle.json").write_bytes(description)
    (place / "SHA256SUMS").write_text(f"{sha256_bytes(description)}  bundle.json\n")
    with pytest.raises(ArtefactError, match=said):
        read_target(place)


def test_a_bundle_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zeros").write_bytes(bytes(100_000))
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "zeros", "bomb/zeros")
    monkeypatch.setattr(reading, "_MOST_BYTES", 50_000)
    with pytest.raises(ArtefactError, match="more than 50000 bytes"):
        read_target(tmp_path / "bomb.tar.gz")


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_value_without_effect_is_refused(tmp_path: Path, command: str) -> None:
    arguments = [command, "model.onnx", *(["--data", "images"] if command == "evaluate" else ["image.png"])]
    ended = run_command([*arguments, "--set", "gate.min_top1=0.9"], cwd=tmp_path)
    assert (ended.code, f"without effect on {command}" in ended.err) == (2, True), ended.err
