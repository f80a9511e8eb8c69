"""The gate of any model by the real command; latency is measured, but no verdict here rests on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from ecd_deploy.cli.model_options import default_output
from ecd_deploy.files import sha256_file
from ecd_deploy.pipelines.gate.decide import GateReport
from tests.commands import Ended, run_command
from tests.pipelines.evaluate.colours import INPUT, save_images, write_model

PROFILE = "[profile]\nwarmup_seconds = 0.0\nmin_seconds = 0.05\nmin_samples = 44\nmax_seconds = 1.0\n"
LOOSE = f"{INPUT}{PROFILE}[gate]\nmin_top1 = 0.5\n"
COMMAND = ("gate", "model.onnx", "--data", "images", "--config", "gate.toml", "--out", "out")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_images(tmp_path / "images")
    write_model(tmp_path / "model.onnx")
    (tmp_path / "gate.toml").write_text(LOOSE)
    return tmp_path


def report_of(folder: Path) -> GateReport:
    return GateReport.from_json((folder / "out/gate.json").read_bytes(), "no report")


def save_digits(folder: Path) -> None:
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images[:300], digits.target[:300], strict=True)):
        path = folder / str(label) / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(image * 255 / 16).astype(np.uint8)).save(path)


def test_one_command_evaluates_profiles_decides_and_reports(folder: Path) -> None:
    ended = run_command(COMMAND, cwd=folder)
    assert ended.code == 0, ended.err
    report = report_of(folder)
    check, warning = report.checks
    assert (warning.name, warning.verdict) == ("classes", "warning")
    assert "blue, green, red" in warning.reason
    assert (check.name, check.verdict) == ("min_top1", "pass")
    assert check.value == pytest.approx(0.8)
    assert report.limits_accuracy
    assert report.profile_sha256 == sha256_file(folder / "out/profile.json")
    assert "no split proof" in (report.not_proved or "")
    assert "no split proof" in " ".join(ended.out.split())
    suite = ET.fromstring((folder / "out/junit.xml").read_text())
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "0", "0")
    for name in ("report.html", "report.md"):
        page = (folder / "out" / name).read_text()
        assert "model.onnx" in page
        assert "no split proof" in page
        assert "80.00%" in page
    assert json.loads((folder / "out/evaluation.json").read_text())["correct"] == 24


def test_a_baseline_is_paired_by_image_whatever_the_order_of_its_classes(folder: Path) -> None:
    shutil.copy(folder / "model.onnx", folder / "old.onnx")
    write_model(folder / "model.onnx", bias=(0.0, 9.0, 0.0))  # takes everything for green
    ended = run_command([*COMMAND, "--baseline", "old.onnx"], cwd=folder)
    assert ended.code == 1, ended.err
    report = report_of(folder)
    (compared,) = report.comparisons
    assert (compared.file, compared.baseline_file) == ("model.onnx", "old.onnx")
    assert (compared.lost, compared.gained) == (16, 2)
    assert compared.model_sha256 == sha256_file(folder / "old.onnx")
    assert {change.name for change in compared.regressions} == {"blue", "red"}
    checks = {check.name: check for check in report.checks}
    assert checks["max_baseline_drop"].verdict == "fail"
    assert "max_p50_ratio" in checks
    old = json.loads((folder / "out/baseline/evaluation.json").read_text())
    assert (old["correct"], old["model"]["file"]) == (24, "old.onnx")


def test_what_was_evaluated_is_used_again_for_another_limit(folder: Path) -> None:
    (folder / "gate.toml").write_text(LOOSE.replace("min_top1 = 0.5", "min_top1 = 0.75"))
    ended = run_command(COMMAND, cwd=folder)
    assert (ended.code, report_of(folder).verdict) == (3, "inconclusive"), ended.err
    (folder / "gate.toml").write_text(LOOSE.replace("min_top1 = 0.5", "min_top1 = 0.95"))
    ended = run_command(COMMAND, cwd=folder)
    assert (ended.code, report_of(folder).verdict) == (1, "fail"), ended.err
    assert "is used again" in ended.err


def test_a_baseline_that_is_given_the_wrong_input_is_warned_of(folder: Path) -> None:
    shutil.copy(folder / "model.onnx", folder / "old.onnx")
    save_images(folder / "more", each=30)
    given = ["--data", "more", "--baseline", "old.onnx", "--set", "input.channels=bgr"]
    ended = run_command([*COMMAND, *given], cwd=folder)
    assert ended.code in {1, 3}, ended.err
    reasons = {check.name: check.reason for check in report_of(folder).checks}
    assert 'channels = "rgb"' in reasons["preprocessing"]
    assert 'channels = "rgb"' in reasons["preprocessing baseline"]


def test_no_earlier_verdict_is_left_where_none_is_reached(folder: Path) -> None:
    shutil.copy(folder / "model.onnx", folder / "old.onnx")
    assert run_command([*COMMAND, "--baseline", "old.onnx"], cwd=folder).code in {0, 3}
    assert (folder / "out/baseline/evaluation.json").is_file()
    ended = run_command([*COMMAND, "--set", "gate.classes.pink.min_recall=0.5"], cwd=folder)
    assert ended.code == 2, ended.err
    left = {path.name for path in (folder / "out").iterdir()}
    assert left == {"evaluation.json", "probabilities.safetensors", "predictions.csv", "confusion.csv", "junit.xml"}
    assert "there is no such class" in (folder / "out/junit.xml").read_text()


def test_folders_in_that_of_the_results_stay_as_they_are(folder: Path) -> None:
    assert run_command(COMMAND, cwd=folder).code == 0
    of_a_run = folder / "out/run/profile.json"
    of_a_run.parent.mkdir()
    of_a_run.write_text("of a run")
    assert run_command(COMMAND, cwd=folder).code == 0
    assert of_a_run.read_text() == "of a run"


@pytest.mark.parametrize(
    ("target", "expected"),
    [("m.onnx", "m-gate"), ("runs/v1.2", "v1.2-gate"), ("x.tar.gz", "x-gate"), (".", f"{Path.cwd().name}-gate")],
)
def test_results_lie_in_a_folder_of_the_models_name(target: str, expected: str) -> None:
    assert default_output(Path(target)) == Path(expected)


def test_a_model_whose_scores_depend_on_the_batch_is_refused(folder: Path) -> None:
    write_model(folder / "model.onnx", minus_batch_mean=True)
    ended = run_command(COMMAND, cwd=folder)
    assert ended.code == 4, ended.err
    assert "gives an image other scores beside other images" in ended.err


def test_classes_slices_size_and_mistakes_each_have_a_row(folder: Path) -> None:
    save_images(folder / "more", each=20)
    rows = [(name, number) for number in range(20) for name in ("blue", "green", "red")]
    lines = [f"more/{name}/{number}.png,{name},{'ab'[number % 5 == 4]}" for name, number in rows]
    (folder / "test.csv").write_text("\n".join(["path,label,camera", *lines]))
    limits = '[gate]\nclasses."red".min_recall = 0.99\nslices.camera."a".min_top1 = 0.2\nmax_size_mb = 0.000001\n'
    (folder / "gate.toml").write_text(f"{INPUT}{PROFILE}{limits}max_baseline_drop = 0.1\n")
    ended = run_command([*COMMAND, "--data", "test.csv", "--set", "input.channels=bgr"], cwd=folder)
    assert ended.code == 1, ended.err
    checks = {check.name: check for check in report_of(folder).checks}
    assert checks["classes.red.min_recall"].verdict == "fail"
    assert checks["slices.camera.a.min_top1"].value == pytest.approx(1 / 3)
    assert checks["max_size_mb"].verdict == "fail"
    assert checks["max_baseline_drop"].verdict == "inconclusive"
    assert checks["preprocessing"].verdict == "warning"
    assert 'channels = "rgb"' in checks["preprocessing"].reason


def test_a_run_keeps_its_proof_and_takes_its_recipes_limits(finished_run: tuple[Path, Ended], tmp_path: Path) -> None:
    save_digits(tmp_path / "images")
    run = finished_run[0]
    ended = run_command(["gate", run, "--data", "images", "--out", "out"], cwd=tmp_path)
    assert ended.code in {0, 3}, ended.err
    report = report_of(tmp_path)
    verdicts = {check.name: check.verdict for check in report.checks}
    assert {verdicts[name] for name in ("split proof", "artefact audit", "min_top1")} == {"pass"}
    assert report.not_proved is None
    assert report.limits.file == "recipe.toml"
    (tmp_path / "limits.toml").write_text("min_top1 = 0.5\nmax_drop = 0.5\nmax_abs_diff = 1e-12\n")
    ended = run_command(
        ["gate", run, "--data", "images", "--out", "out", "--config", "limits.toml", "--set", "gate.artefact=onnx"],
        cwd=tmp_path,
    )
    report = report_of(tmp_path)
    verdicts = {check.name: check.verdict for check in report.checks}
    assert (ended.code, verdicts["max_abs_diff onnx"], verdicts["max_drop"]) == (1, "fail", "pass"), ended.err
    assert report.limits.replaces_recipe
    assert [shipped.format for shipped in report.artefacts] == ["onnx"]
    ended = run_command(["gate", run, "--data", "images", "--out", "out", "--set", "gate.min_top1=1"], cwd=tmp_path)
    assert (ended.code, "give --config" in ended.err) == (2, True), ended.err
    student = run / "exports/student.onnx"
    ended = run_command(["gate", student, "--data", "images", "--baseline", run, "--out", "out"], cwd=tmp_path)
    assert ended.code in {0, 1, 3}, ended.err
    (compared,) = report_of(tmp_path).comparisons
    assert (compared.baseline_file, compared.lost, compared.gained) == ("student.onnx", 0, 0)


@pytest.mark.slow
def test_each_artefact_that_onnxruntime_runs_is_decided_about(tmp_path: Path) -> None:
    save_digits(tmp_path / "images")
    formats = 'export.formats=["onnx", "onnx-int8", "ort"]'
    tiny = ("train.epochs=1", "data.train_limit=300", "data.test_limit=60", "profile.min_seconds=0.05")
    words = [word for value in (formats, *tiny) for word in ("--set", value)]
    assert run_command(["run", "digits", "--out", "run", "--no-rehearsal", *words], cwd=tmp_path).code in {0, 1, 3}
    assert run_command(["profile", "run", "--format", "all"], cwd=tmp_path).code in {0, 3}
    for artefact, formats_of in (("ort", ["ort"]), ("all", ["onnx", "onnx-int8", "ort"])):
        (tmp_path / "gate.toml").write_text(f'{PROFILE}[gate]\nartefact = "{artefact}"\nmin_top1 = 0.001\n')
        command = ["gate", "run", "--data", "images", "--config", "gate.toml", "--out", f"out-{artefact}"]
        ended = run_command([*command, "--baseline", "run"], cwd=tmp_path)
        assert ended.code in {0, 1, 3}, ended.err
        out = tmp_path / f"out-{artefact}"
        report = GateReport.from_json((out / "gate.json").read_bytes(), "no report")
        assert [shipped.format for shipped in report.artefacts] == formats_of
        values = {check.name: check.value for check in report.checks if check.name.startswith("min_top1")}
        names = ["min_top1"] if artefact != "all" else [f"min_top1 {name}" for name in formats_of]
        assert list(values) == names
        ratios = [check.name for check in report.checks if check.name.startswith("max_p50_ratio")]
        assert ratios == [name.replace("min_top1", "max_p50_ratio") for name in names]
    assert values["min_top1 ort"] == values["min_top1 onnx"]
    assert [(entry.file, entry.lost, entry.gained) for entry in report.comparisons] == [
        (Path(entry.file).name, 0, 0) for entry in report.artefacts
    ]
    assert all(entry.file == entry.baseline_file for entry in report.comparisons)
    assert json.loads((out / "baseline/student.ort/evaluation.json").read_text())["model"]["file"] == "student.ort"
    assert json.loads((out / "student.ort/evaluation.json").read_text())["model"]["file"] == "student.ort"


@pytest.mark.parametrize("limit", ["0.5", "0.95"])
def test_the_verdict_is_written_for_a_comment(folder: Path, limit: str) -> None:
    (folder / "gate.toml").write_text(LOOSE.replace("min_top1 = 0.5", f"min_top1 = {limit}"))
    ended = run_command([*COMMAND, "--markdown", "new/comment.md"], cwd=folder)
    report = report_of(folder)
    assert ended.code == (0 if report.verdict == "pass" else 1), ended.err
    text = (folder / "new/comment.md").read_text()
    assert text.startswith(f"## ecd-deploy gate: {report.verdict.value}\n")
    assert f"| min_top1 | 0.8 | {report.checks[0].bound:.4g} | {limit} | {report.verdict.value} | 30 images |" in text
    assert [path.name for path in (folder / "new").iterdir()] == ["comment.md"]


@pytest.mark.parametrize("name", ["images", "model.onnx/comment.md", "/proc/comment.md"])
def test_a_comment_that_cannot_be_written_is_told_before_anything_is_decided(folder: Path, name: str) -> None:
    before = sorted(folder.rglob("*"))
    for command in (COMMAND, ("gate", ".")):
        ended = run_command([*command, "--markdown", name], cwd=folder)
        assert (ended.code, ended.out) == (2, ""), ended.err
        assert f"--markdown {name} cannot be written: " in ended.err
        assert ended.err.count("\n") == 1
        assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("gate", "model.onnx"), 2, "give images with --data"),
        (("gate", "model.onnx", "--data", "images"), 2, "nothing is limited"),
        (("gate", "images", "--out", "out"), 2, "--out: only with --data"),
        ((*COMMAND, "--set", "gate.artefact=onnx-int8"), 2, "only of a run directory"),
        ((*COMMAND, "--set", "gate.max_drop=0.1"), 2, "which a file has none of"),
        ((*COMMAND, "--set", "gate.min_topp1=0.1"), 2, "did you mean 'min_top1'"),
        ((*COMMAND, "--set", "gate.classes.pink.min_recall=0.5"), 2, "there is no such class"),
        ((*COMMAND, "--baseline", "gate.toml"), 4, "not an ONNX model"),
        ((*COMMAND, "--baseline", "absent.onnx"), 2, "there is no file absent.onnx"),
        ((*COMMAND, "--baseline", "eighty.onnx"), 4, "80 outputs"),
        ((*COMMAND, "--data", "absent"), 2, "no folder, CSV file or Parquet file absent"),
    ],
)
def test_bad_input_is_refused(folder: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    write_model(folder / "eighty.onnx", outputs=80)
    before = sorted(folder.rglob("*"))
    ended = run_command(arguments, cwd=folder)
    assert (ended.code, ended.out) == (code, ""), ended.err
    assert said in ended.err
    assert sorted(folder.rglob("*")) == before
