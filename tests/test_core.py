"""What the core does, the package without its extra [train]: everything that needs no torch."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from sklearn.datasets import load_digits

from tests.commands import Ended, run_command
from tests.forging import forge_entry
from tests.pipelines.evaluate.colours import INPUT, save_images, write_model
from tests.without import COMMAND, TRAINING, run_without

LINE = "Error: torch is not installed: pip install 'ecd-deploy[train]'\n"
RECIPE = (
    *("data.source=imagefolder", "data.image_size=8", "data.validation_fraction=0.0", "data.max_test_overlap=1.0"),
    *("train.epochs=1", "train.threads=1", "train.select=last", "gate.p90_ms_max=1000.0"),
    *(
        "gate.min_top1=0.01",
        "gate.max_drop=1.0",
        "profile.min_seconds=0.1",
        "profile.warmup_seconds=0.0",
        "profile.max_seconds=1.0",
    ),
    'export.formats=["safetensors", "torchscript", "onnx", "onnx-int8", "ort", "pt2"]',
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a folder of digits, finished with torch."""
    folder = tmp_path_factory.mktemp("core")
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images[:300], digits.target, strict=False)):
        path = folder / "images" / ("test" if number % 3 == 0 else "train") / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15.9).astype(np.uint8)).save(path)
    places = (f"data.path={folder / 'images'}", f"data.cache_dir={folder / 'cache'}")
    words = [word for value in (*RECIPE, *places) for word in ("--set", value)]
    ended = run_command(["run", "digits", "--out", "run", "--no-rehearsal", *words], cwd=folder)
    assert ended.code in {0, 3}, ended.err
    return folder / "run"


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def core(*words: str | Path, cwd: Path) -> Ended:
    return run_without(TRAINING, COMMAND, words, cwd=cwd)


@pytest.mark.parametrize(
    "words",
    [
        ["gate", "run"],
        ["gate", "run", "--baseline", "run"],
        ["profile", "run"],
        ["verify", "run"],
        ["report", "run"],
        ["report", "run", "--against", "other"],
    ],
    ids=" ".join,
)
def test_a_finished_run_is_treated_without_torch(copy: Path, run: Path, words: list[str]) -> None:
    (copy.parent / "other").symlink_to(run)
    ended = core(*words, cwd=copy.parent)
    assert ended.code in {0, 3}, ended.err
    assert "Error: internal" not in ended.err


def test_a_bundle_made_without_torch_has_the_same_bytes(copy: Path) -> None:
    words = ("bundle", str(copy), "--format", "onnx-int8", "--out")
    assert run_command([*words, "with.tar.gz"], cwd=copy.parent).code == 0
    assert core(*words, "without.tar.gz", cwd=copy.parent).code == 0
    assert (copy.parent / "with.tar.gz").read_bytes() == (copy.parent / "without.tar.gz").read_bytes()
    with tarfile.open(copy.parent / "with.tar.gz") as archive:
        assert any(name.endswith("samples/scores.npy") for name in archive.getnames())


def test_a_baseline_is_evaluated_anew_without_torch(copy: Path) -> None:
    code = """
from pathlib import Path
from ecd_deploy.pipelines.gate.rerun import predict_anew
from ecd_deploy.pipelines.record.artefacts import ArtefactList
from ecd_deploy.pipelines.record.predictions import read_predictions
from ecd_deploy.pipelines.record.run_directory import read_run
run = read_run(Path("run"))
found = predict_anew(run, run.read_json("artefacts.json", ArtefactList).find("onnx"), run)
assert found.test_digest == read_predictions(run)["onnx"].test_digest
assert found.chosen.tolist() == read_predictions(run)["onnx"].chosen.tolist()
print("same")
"""
    assert run_without(TRAINING, code, [], cwd=copy.parent).out == "same\n"


def test_a_weight_that_was_not_proved_is_found_without_torch(copy: Path) -> None:
    tensors = load_file(copy / "split.safetensors")
    tensors["fc.bias"] = tensors["fc.bias"] + 1
    save_file(tensors, copy / "split.safetensors")
    forge_entry(copy, "split.safetensors")
    ended = core("verify", "run", cwd=copy.parent)
    assert ended.code == 4
    assert "split.safetensors: fc.bias is not a tensor that was proved" in ended.err


def test_what_is_not_checked_without_torch_is_said(copy: Path) -> None:
    ended = core("verify", "run", cwd=copy.parent)
    assert (ended.code, ended.err) == (0, "")
    assert "not checked: whether the recipe's network takes the weights" in ended.out


@pytest.mark.parametrize(
    "words",
    [
        ["run", "digits", "--out", "out"],
        ["train", "out", "--recipe", "digits"],
        ["split", "out"],
        ["export", "out"],
        ["validate", "out"],
        ["inspect", "digits"],
        ["rehearse", "digits"],
        ["explain", "out"],
        ["compare", "table-1", "--out", "out"],
        ["search", "digits", "--out", "out"],
        ["verify", "out", "--reproduce"],
    ],
    ids=lambda words: words[0],
)
def test_what_needs_torch_says_so_in_one_line_before_it_does_anything(tmp_path: Path, words: list[str]) -> None:
    ended = core(*words, cwd=tmp_path)
    assert (ended.code, ended.out, ended.err) == (2, "", LINE)
    assert not list(tmp_path.iterdir())


def test_each_missing_package_of_training_is_named(tmp_path: Path) -> None:
    ended = run_without(["sklearn"], COMMAND, ["run", "digits"], cwd=tmp_path)
    assert (ended.code, ended.err) == (2, "Error: scikit-learn is not installed: pip install 'ecd-deploy[train]'\n")


def test_a_first_recipe_needs_no_torch(tmp_path: Path) -> None:
    save_images(tmp_path / "images")
    ended = core("init", "images", cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    assert (tmp_path / "images.toml").is_file()


@pytest.mark.parametrize("words", [["doctor"], ["models"], ["recipes"], ["studies"], ["schema"], ["--help"]])
def test_looks_need_no_torch(tmp_path: Path, words: list[str]) -> None:
    ended = core(*words, cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")


def test_any_model_is_evaluated_asked_and_gated_without_torch(tmp_path: Path) -> None:
    save_images(tmp_path / "images")
    write_model(tmp_path / "model.onnx")
    (tmp_path / "gate.toml").write_text(f"{INPUT}[gate]\nmin_top1 = 0.5\n[profile]\nmin_seconds = 0.1\n")
    given = ("--data", "images", "--config", "gate.toml")
    for words in (
        ("evaluate", "model.onnx", *given, "--out", "out"),
        ("predict", "model.onnx", "images/red/0.png", "--config", "gate.toml"),
        ("gate", "model.onnx", *given, "--baseline", "model.onnx", "--set", "gate.max_p50_ratio=100.0"),
    ):
        ended = core(*words, cwd=tmp_path)
        assert ended.code in ({0, 3} if words[0] == "gate" else {0}), ended.err


def test_the_functions_for_python_need_no_torch(copy: Path) -> None:
    code = """
import ecd_deploy
report = ecd_deploy.gate("run", baseline="run", config="gate.toml")
print(report.verdict, report.comparisons[0].images)
found = ecd_deploy.profile("run/exports/student.onnx", threads=1, cpus=[0])
print(found.file, found.measurement.cpus, found.latency.threads)
try:
    ecd_deploy.gate("nowhere")
except ecd_deploy.errors.UsageError as error:
    print(error)
"""
    (copy.parent / "gate.toml").write_text("min_top1 = 1.0\n")
    ended = run_without(TRAINING, "import ecd_deploy.errors\n" + code, [], cwd=copy.parent)
    assert ended.out.splitlines() == [
        "fail 100",
        "student.onnx (0,) 1",
        "nowhere is not a run directory: it has no MANIFEST.json",
    ], ended.err
