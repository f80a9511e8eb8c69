"""The limits are of the artefact that ships, which `validate` chose once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ecd_deploy.files import sha256_bytes
from ecd_deploy.pipelines.record.profile import Profile, describe
from tests.commands import Ended, run_command

SMALL = (
    "train.epochs=1",
    "data.train_limit=300",
    "data.test_limit=60",
    "profile.min_seconds=0.05",
    "profile.max_seconds=1.0",
)
BLIND = ("profile.warmup_seconds=0.0", "gate.p90_ms_max=1000.0", "gate.min_top1=0.0", "gate.max_drop=1.0")
FORMATS = 'export.formats=["onnx", "onnx-int8"]'


def run(folder: Path, *settings: str) -> Ended:
    words = [word for value in (*SMALL, *BLIND, FORMATS, *settings) for word in ("--set", value)]
    return run_command(["run", "digits", "--out", "run", "--no-rehearsal", *words], cwd=folder)


@pytest.fixture(scope="module")
def pinned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose limits are of its INT8 artefact."""
    folder = tmp_path_factory.mktemp("pinned")
    ended = run(folder, "gate.artefact=onnx-int8", "gate.max_size_mb=0.2")
    assert ended.code in {0, 1, 3}, ended.err
    return folder / "run"


@pytest.fixture
def root(pinned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pinned, tmp_path / "run"))


def read(root: Path, name: str) -> Any:
    return json.loads((root / name).read_text())


def checks(root: Path) -> dict[str, Any]:
    return {check["name"]: check for check in read(root, "gate.json")["checks"]}


def test_accuracy_latency_and_size_are_those_of_what_ships(root: Path) -> None:
    int8 = next(entry for entry in read(root, "artefacts.json")["artefacts"] if entry["format"] == "onnx-int8")
    validated = next(entry for entry in read(root, "validation.json")["artefacts"] if entry["format"] == "onnx-int8")
    assert [entry["sha256"] for entry in read(root, "gate.json")["artefacts"]] == [int8["sha256"]]
    assert read(root, "profile.json")["sha256"] == int8["sha256"]
    found = checks(root)
    assert found["max_size_mb"]["value"] == int8["bytes"] / 1e6
    assert found["max_size_mb"]["verdict"] == "pass"  # the fp32 file would not
    top1 = validated["top1"]["candidate"]
    assert found["min_top1"]["value"] == top1["correct"] / top1["images"]
    assert Path(int8["file"]).name in (root / "report.html").read_text()


def test_a_file_of_limits_names_another_artefact_which_is_then_profiled(root: Path, tmp_path: Path) -> None:
    config = tmp_path / "gate.toml"
    config.write_text('artefact = "onnx"\nmax_size_mb = 0.2\n')
    ended = run_command(["gate", root, "--config", config], cwd=tmp_path)
    assert ended.code == 4
    assert "run `profile` again, with --format onnx" in " ".join(ended.err.split())
    before = (root / "profile.json").read_bytes()
    assert run_command(["profile", root, "--format", "onnx"], cwd=tmp_path).code in {0, 3}
    assert (root / "profile.json").read_bytes() == before
    assert run_command(["gate", root, "--config", config], cwd=tmp_path).code == 1
    assert checks(root)["max_size_mb"]["reason"] == "student.onnx"
    config.write_text('artefact = "all"\nmax_size_mb = 0.2\n')
    assert run_command(["gate", root, "--config", config], cwd=tmp_path).code == 1
    found = checks(root)
    assert [found[f"max_size_mb {name}"]["verdict"] for name in ("onnx", "onnx-int8")] == ["fail", "pass"]


def test_each_artefact_is_held_to_every_limit_and_to_the_baselines_of_its_format(
    root: Path, pinned: Path, tmp_path: Path
) -> None:
    config, formats = tmp_path / "gate.toml", ("onnx", "onnx-int8")
    config.write_text('artefact = "all"\nmax_p50_ratio = 1000.0\n')
    assert run_command(["profile", root, "--format", "all"], cwd=tmp_path).code in {0, 3}
    assert run_command(["gate", root, "--config", config], cwd=tmp_path).code == 3
    found = checks(root)
    assert [found[f"max_p50_ratio {name}"]["reason"] for name in formats] == ["no baseline was given"] * 2
    ended = run_command(["gate", root, "--config", config, "--baseline", pinned], cwd=tmp_path)
    assert ended.code in {0, 3}, ended.err  # 60 images are few for the drop
    found, files = checks(root), ["student.onnx", "student.int8.onnx"]
    ratios = [found[f"max_p50_ratio {name}"]["value"] for name in formats]
    compared = read(root, "gate.json")["comparisons"]
    assert ratios == [entry["latency"]["ratio"] for entry in compared]
    assert [found[f"max_baseline_drop {name}"]["value"] for name in formats] == [0, 0]
    assert [(entry["file"], entry["baseline_file"]) for entry in compared] == list(zip(files, files, strict=True))
    said = " ".join(ended.out.split())
    assert all(f"{file} against the baseline's {file}, 60 test images: 0 lost, 0 gained" in said for file in files)


def test_the_recommended_one_is_read_and_never_chosen_anew(root: Path, tmp_path: Path) -> None:
    config = tmp_path / "gate.toml"
    config.write_text("max_size_mb = 100.0\n")
    assert run_command(["profile", root, "--format", "all"], cwd=tmp_path).code in {0, 3}
    validation = read(root, "validation.json")
    assert run_command(["gate", root, "--config", config], cwd=tmp_path).code in {0, 3}
    (shipped,) = read(root, "gate.json")["artefacts"]
    assert (shipped["format"], shipped["sha256"]) == (validation["recommended"], validation["recommended_sha256"])


def test_a_profile_of_an_ort_file_has_no_layers(root: Path) -> None:
    found, data = Profile.from_json((root / "profile.json").read_bytes(), "no profile"), b"\0\0\0\0ORTM"
    model = found.measurement.model.model_copy(update={"sha256": sha256_bytes(data)})
    measurement = found.measurement.model_copy(update={"model": model})
    assert found.layers
    assert describe("student.ort", data, measurement, "host").layers == ()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("profile", "--format", "onnx-fp16"),
            "artefact 'onnx-fp16': it is not one that a runtime of profile.runtimes runs; choices are",
        ),
        (("profile", "--format", "all", "--json", "x.json"), "--json takes one result"),
        (("profile", "--format", "all", "--host", "nobody@127.0.0.1"), "--host measures one artefact at a time"),
    ],
)
def test_an_artefact_that_is_not_there_is_a_wrong_call(root: Path, words: tuple[str, ...], said: str) -> None:
    ended = run_command([words[0], root, *words[1:]], cwd=root.parent)
    assert ended.code == 2, ended.err
    assert said in " ".join(ended.err.split())


def test_a_recipe_that_names_a_format_it_does_not_export_is_refused_at_once(tmp_path: Path) -> None:
    ended = run(tmp_path, "gate.artefact=onnx-fp16")
    assert ended.code == 2
    said = "gate.artefact is 'onnx-fp16', and is one of recommended, all, onnx, onnx-int8"
    assert said in " ".join(ended.err.split())
    assert not (tmp_path / "run").exists()


def test_a_bundle_holds_what_ships(root: Path, tmp_path: Path) -> None:
    ended = run_command(["bundle", root], cwd=tmp_path)
    assert ended.code in {0, 1}, ended.err
    assert ended.code == 1 or "digits-onnx-int8.tar.gz" in ended.out
