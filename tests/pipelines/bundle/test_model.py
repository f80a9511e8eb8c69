"""A bundle of a model that was not made here."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from onnxruntime.quantization import quantize_dynamic
from PIL import Image

from ecd_deploy.errors import ArtefactError
from ecd_deploy.files import sha256_file
from ecd_deploy.pipelines.evaluate.target import read_target
from ecd_deploy.recipe.input import InputConfig
from tests.commands import Ended, run_command
from tests.pipelines.evaluate.colours import INPUT, MEAN, STD, draw, save_images, write_model

SWAPPED = """[input]
size = [6, 9]
resize = "stretch"
channels = "bgr"
mean = [0.3, 0.4, 0.5]
std = [0.5, 0.25, 0.2]
"""
PIXELS = "[input]\nresize = 12\n"
FREE: dict[str, object] = {"sides": ("h", "w"), "layout": "nhwc", "dtype": "float16", "softmax": True}
FIXED: dict[str, object] = {"dtype": "uint8", "batch": 4, "factor": 0.01}


def run(folder: Path, *words: str) -> Ended:
    command = [sys.executable, str(folder / "run.py"), *words]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, timeout=120)
    assert "Traceback" not in done.stderr
    return Ended(done.returncode, done.stdout, done.stderr)


def unpack(folder: Path) -> Path:
    with tarfile.open(folder / "colours.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "colours"


def bundle(folder: Path, expects: str, **model: object) -> Ended:
    write_model(folder / "colours.onnx", **model)  # type: ignore[arg-type]
    (folder / "gate.toml").write_text(expects + "[gate]\np90_ms_max = 1000.0\n[profile]\nmin_seconds = 0.01\n")
    return run_command(["bundle", "colours.onnx", "--data", "images", "--config", "gate.toml"], cwd=folder)


@pytest.mark.parametrize(
    ("expects", "model", "right"),
    [(INPUT, {}, "80.00%"), (SWAPPED, FREE, "33.33%"), (PIXELS, FIXED, "80.00%")],
    ids=["float32", "float16", "uint8"],
)
def test_it_checks_itself_and_classifies_as_predict_does(
    tmp_path: Path, expects: str, model: dict[str, object], right: str
) -> None:
    save_images(tmp_path / "images", side=8 if expects == INPUT else 20)
    ended = bundle(tmp_path, expects, **model)
    assert ended.code == 0, ended.err
    folder = unpack(tmp_path)
    ended = run(folder, "--no-latency")
    assert ended.code == 0, ended.out + ended.err
    document = json.loads(ended.out.splitlines()[-1])
    assert {row["verdict"] for row in document["checks"]} == {"pass", "skipped"}
    assert json.loads((folder / "labels.json").read_text()) == ["blue", "green", "red"]
    assert f"right on {right} of 30 test images" in (folder / "README.txt").read_text()
    (tmp_path / "classes.txt").write_text("blue\ngreen\nred\n")
    for name in ("blue", "green", "red"):
        Image.fromarray(draw(name, 1, 30)).save(tmp_path / f"{name}.png")
        said = run(folder, str(tmp_path / f"{name}.png")).out
        words = [
            "predict",
            "colours.onnx",
            f"{name}.png",
            "--config",
            "gate.toml",
            "--set",
            "input.classes=classes.txt",
            "--top",
            "3",
        ]
        assert said.partition(": ")[2] == run_command(words, cwd=tmp_path).out.partition(": ")[2]
    for packed in (folder, "colours.tar.gz"):
        known = run_command(["predict", packed, "red.png", "--top", "3"], cwd=tmp_path)
        assert known.out.partition(": ")[2] == said.partition(": ")[2], known.err
    refused = run_command(["predict", folder, "red.png", "--set", "input.channels=bgr"], cwd=tmp_path)
    assert (refused.code, "remove input.channels" in refused.err) == (2, True)


@pytest.mark.parametrize(
    "spoil", [{"preprocessing": {}}, {"scores": "numbers"}, {"batch": "two"}, {"input": None}, {"output": "colour"}]
)
def test_a_bundle_that_does_not_say_what_its_model_expects_is_refused(tmp_path: Path, spoil: dict[str, object]) -> None:
    write_model(tmp_path / "model.onnx")
    said: dict[str, object] = {
        "schema_version": 1, "model": "model.onnx", "input": "pixels", "output": "scores", "batch": None,
        "scores": "logits",
        "preprocessing": {"height": 8, "width": 8, "resize": None, "channels": "rgb", "scale": 1.0, "mean": MEAN,
                          "std": STD, "layout": "nchw", "dtype": "float32"},
    }  # fmt: skip
    (tmp_path / "labels.json").write_text('["blue", "green", "red"]')

    def describe(description: dict[str, object]) -> None:
        (tmp_path / "bundle.json").write_text(json.dumps(description))
        names = ("bundle.json", "labels.json", "model.onnx")
        (tmp_path / "SHA256SUMS").write_text("".join(f"{sha256_file(tmp_path / name)}  {name}\n" for name in names))

    describe(said)
    assert read_target(tmp_path).expectation(InputConfig()).classes == ("blue", "green", "red")
    describe({key: value for key, value in {**said, **spoil}.items() if key not in spoil or spoil[key] is not None})
    with pytest.raises(ArtefactError, match="what the model expects cannot be read"):
        read_target(tmp_path)


def test_the_latency_is_measured_by_the_configurations_conditions(tmp_path: Path) -> None:
    save_images(tmp_path / "images")
    assert bundle(tmp_path, INPUT).code == 0
    ended = run(unpack(tmp_path))
    document = json.loads(ended.out.splitlines()[-1])
    assert ended.code == {"pass": 0, "inconclusive": 3}[document["verdict"]]
    assert {row["name"] for row in document["checks"]} >= {"parity", "batch 1", "accuracy", "latency", "p90_ms_max"}


def test_another_model_under_its_name_is_found_out(tmp_path: Path) -> None:
    save_images(tmp_path / "images")
    assert bundle(tmp_path, INPUT).code == 0
    folder = unpack(tmp_path)
    before, scores = sha256_file(folder / "samples/scores.npy"), np.load(folder / "samples/scores.npy")
    np.save(folder / "samples/scores.npy", scores[:, ::-1])
    assert run(folder).code == 4
    sums = (folder / "SHA256SUMS").read_text()
    (folder / "SHA256SUMS").write_text(sums.replace(before, sha256_file(folder / "samples/scores.npy")))
    ended = run(folder, "--no-latency")
    assert ended.code == 1
    assert "logits differ by at most" in ended.out


def test_a_quantised_model_may_differ_by_more(tmp_path: Path) -> None:
    save_images(tmp_path / "images")
    assert bundle(tmp_path, INPUT).code == 0
    exact = json.loads((unpack(tmp_path) / "bundle.json").read_text())
    quantize_dynamic(tmp_path / "colours.onnx", tmp_path / "int8.onnx")
    words = ["bundle", "int8.onnx", "--data", "images", "--config", "gate.toml", "--out", "small/colours.tar.gz"]
    (tmp_path / "small").mkdir()
    assert run_command(words, cwd=tmp_path).code == 0
    folder = unpack(tmp_path / "small")
    coarse = json.loads((folder / "bundle.json").read_text())
    assert coarse["max_difference"] > 100 * exact["max_difference"] > 0
    assert (exact["min_same_class"], coarse["min_same_class"]) == (1.0, 0.9)
    assert run(folder, "--no-latency").code == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["colours.onnx"], 2, "give images with --data FOLDER"),
        (["colours.onnx", "--data", "images"], 2, "does not say what it expects: set mean"),
        (["colours.onnx", "--data", "images", "--config", "gate.toml", "--out", "gate.toml"], 2, "is a .tar.gz file"),
        (["colours.onnx", "--data", "images", "--config", "gate.toml", "--out", "taken.tar.gz"], 2, "exists already"),
        (["colours.onnx", "--data", "images", "--config", "gate.toml", "--format", "onnx"], 2, "of a run directory"),
        (["colours.onnx", "--data", "images", "--config", "gate.toml", "--set", "gate.max_drop=0.1"], 2, "max_drop"),
        (["run", "--config", "gate.toml"], 2, "--config: only with --data"),
        (["cut.onnx", "--data", "images", "--config", "gate.toml"], 4, "is not an ONNX model"),
    ],
    ids=["no-data", "no-input", "suffix", "taken", "format", "max_drop", "run", "cut"],
)
def test_what_cannot_be_bundled_is_told(tmp_path: Path, words: list[str], code: int, message: str) -> None:
    save_images(tmp_path / "images")
    model = write_model(tmp_path / "colours.onnx")
    (tmp_path / "cut.onnx").write_bytes(model.read_bytes()[:100])
    (tmp_path / "gate.toml").write_text(INPUT)
    (tmp_path / "taken.tar.gz").write_bytes(b"mine")
    before = sorted(tmp_path.rglob("*"))
    ended = run_command(["bundle", *words], cwd=tmp_path)
    assert (ended.code, message in ended.err) == (code, True), ended.err
    assert sorted(tmp_path.rglob("*")) == before
