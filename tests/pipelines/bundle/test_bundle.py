"""A bundle where nothing of this project is: unpacked elsewhere, run by a Python with numpy and onnxruntime alone."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import venv
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from ecd_deploy.data import load_data
from ecd_deploy.errors import DigestError, EcdDeployError, RunDirectoryError, UsageError
from ecd_deploy.files import sha256_file
from ecd_deploy.measure.device.runner.checks import latency_rows
from ecd_deploy.measure.predictors.prediction import predict
from ecd_deploy.measure.predictors.torch_predictor import torch_predictor
from ecd_deploy.pipelines.record.run_directory import open_run, read_run
from ecd_deploy.pipelines.run import run_bundle
from ecd_deploy.pipelines.steps.samples import choose_samples
from ecd_deploy.pipelines.steps.split import open_student, read_proof
from ecd_deploy.recipe.gate import GateConfig
from tests.batch_dependent import other_in_a_batch_of, plant
from tests.commands import Ended, run_command

FILES = (
    "LICENSE",
    "README.txt",
    "SHA256SUMS",
    "bundle.json",
    "device_runner.pyz",
    "labels.json",
    "run.py",
    "samples/images.npy",
    "samples/labels.npy",
    "samples/scores.npy",
    "student.onnx",
)
NO_NETWORK = """
import sys

def refuse(event, arguments):
    if event.startswith("socket."):
        raise RuntimeError("the network was asked for: " + event)

sys.addaudithook(refuse)
"""


@pytest.fixture(scope="module")
def archive(finished_run: tuple[Path, Ended], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundled")
    ended = run_command(["bundle", finished_run[0]], cwd=folder)
    assert ended.code == 0, ended.err
    path = folder / "digits-onnx.tar.gz"
    assert sha256_file(path) in ended.out
    return path


@pytest.fixture
def unpacked(archive: Path, tmp_path: Path) -> Path:
    with tarfile.open(archive) as found:
        found.extractall(tmp_path, filter="data")
    return tmp_path / "digits-onnx"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that finds numpy and onnxruntime, nothing else, and no network."""
    folder = tmp_path_factory.mktemp("device")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for module in (np, sys.modules.get("onnxruntime") or __import__("onnxruntime")):
        source = Path(str(module.__file__)).parent
        for path in (source, source.with_name(f"{source.name}.libs")):
            if path.exists():
                (site / path.name).symlink_to(path)
    (site / "sitecustomize.py").write_text(NO_NETWORK)
    return folder / "bin" / "python"


def run(python: Path, folder: Path, *arguments: str) -> tuple[Ended, dict[str, Any]]:
    command = [str(python), "-I", str(folder / "run.py"), *arguments]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, timeout=120)
    assert "Traceback" not in done.stderr
    document = json.loads(done.stdout.splitlines()[-1]) if done.stdout.endswith("}\n") else {}
    return Ended(done.returncode, done.stdout, done.stderr), document


def seal(folder: Path) -> None:
    """Record what was changed, as somebody would who knows of the digests."""
    names = [name for name in FILES if name != "SHA256SUMS"]
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines))


def test_it_runs_where_nothing_of_the_project_is(
    python: Path, unpacked: Path, finished_run: tuple[Path, Ended]
) -> None:
    absent = "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, ('torch', 'onnx', 'ecd_deploy'))))"
    assert subprocess.run([str(python), "-I", "-c", absent], cwd="/", check=False).returncode == 0
    before = {path: path.stat().st_mtime_ns for path in unpacked.rglob("*")}
    ended, document = run(python, unpacked, "--json", str(unpacked.parent / "result.json"))
    assert ended.code == {"pass": 0, "inconclusive": 3}[document["verdict"]], ended.err
    verdicts = {row["name"]: row["verdict"] for row in document["checks"]}
    assert [verdicts[name] for name in ("files", "parity", "batch 1", "accuracy")] == ["pass"] * 4
    assert "samples, one at a time" in ended.out
    assert verdicts["latency"] == verdicts["p90_ms_max"]  # inconclusive on a busy test machine
    assert "verdict: " + document["verdict"] in ended.out
    assert "samples_ms" not in document["latency"]
    whole = json.loads((unpacked.parent / "result.json").read_text())
    assert len(whole["latency"]["samples_ms"]) >= 459
    assert document["bundle"]["model_sha256"] == sha256_file(finished_run[0] / "exports/student.onnx")
    assert before == {path: path.stat().st_mtime_ns for path in unpacked.rglob("*")}  # nothing is left behind


def test_photos_are_classified_where_pillow_is_and_else_it_is_asked_for(python: Path, unpacked: Path) -> None:
    photo = unpacked.parent / "photo.png"
    Image.fromarray(np.load(unpacked / "samples/images.npy")[0, ..., 0]).save(photo)
    chosen = np.load(unpacked / "samples/scores.npy")[0].argmax()
    before = sorted(unpacked.rglob("*"))
    ended, _ = run(Path(sys.executable), unpacked, str(photo))
    assert ended.code == 0, ended.err
    assert ended.out.startswith(f"{photo}: {chosen} ")
    ended, _ = run(python, unpacked, str(photo))
    assert (ended.code, ended.err) == (4, "Error: Pillow is needed to read images: pip install pillow\n")
    ended, _ = run(Path(sys.executable), unpacked, "absent.jpg")
    assert (ended.code, ended.err) == (4, "Error: cannot read the images: No such file or directory\n")
    assert sorted(unpacked.rglob("*")) == before


def test_the_archive_holds_these_files_and_the_systems_tool_agrees(archive: Path, unpacked: Path) -> None:
    with tarfile.open(archive) as found:
        assert sorted(found.getnames()) == [f"digits-onnx/{name}" for name in FILES]
        assert {(entry.uid, entry.gid, entry.uname, entry.mtime) for entry in found} == {(0, 0, "", 0)}
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    checked = subprocess.run(command, cwd=unpacked, capture_output=True, check=False)
    assert checked.returncode == 0
    assert checked.stdout.count(b"OK") == len(FILES) - 1
    assert "Apache License" in (unpacked / "LICENSE").read_text()
    readme = (unpacked / "README.txt").read_text()
    assert "What the model takes of an image:\n8 x 8 pixels (height x width) as they are.\n" in readme
    assert json.loads((unpacked / "labels.json").read_text()) == [str(digit) for digit in range(10)]


def test_samples_are_images_of_the_test_split_with_the_students_logits(
    unpacked: Path, finished_run: tuple[Path, Ended]
) -> None:
    directory = read_run(finished_run[0])
    data = load_data(directory.recipe.data, seed=directory.recipe.seed)
    images, labels, logits = (np.load(unpacked / f"samples/{name}.npy") for name in ("images", "labels", "scores"))
    test = {image.tobytes(): int(label) for image, label in zip(data.test.images, data.test.labels, strict=True)}
    assert [test[image.transpose(2, 0, 1).tobytes()] for image in images] == labels.tolist()
    assert np.bincount(labels, minlength=10).min() >= 20
    student = open_student(directory, data, read_proof(directory)).module
    with torch.inference_mode():
        again = student(torch.from_numpy(data.normalisation.apply(images.transpose(0, 3, 1, 2))))
    assert np.abs(again.numpy() - logits).max() < 1e-5


def test_an_image_whose_class_hangs_on_rounding_is_no_sample(finished_run: tuple[Path, Ended]) -> None:
    directory = read_run(finished_run[0])
    data = load_data(directory.recipe.data, seed=directory.recipe.seed)
    student = open_student(directory, data, read_proof(directory)).module
    found = predict(torch_predictor(student), data.normalisation.batches(data.test, 128))
    chosen = choose_samples(data.test, found, GateConfig(max_abs_diff=1.5))
    ordered = np.sort(chosen.logits, axis=1)
    assert len(chosen.indices) > 20
    assert (ordered[:, -1] - ordered[:, -2] > 3).all()
    assert not len(choose_samples(data.test, found, GateConfig(max_abs_diff=1e9)).indices)


def test_the_same_run_gives_the_same_bytes(archive: Path, finished_run: tuple[Path, Ended], tmp_path: Path) -> None:
    shutil.copytree(finished_run[0], tmp_path / "elsewhere")
    again = run_bundle(tmp_path / "elsewhere", format_name="onnx", output=tmp_path / "other-name.tar.gz")
    assert again.path.read_bytes() == archive.read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_one_damaged_byte_of_any_file_is_told(python: Path, unpacked: Path, name: str) -> None:
    content = bytearray((unpacked / name).read_bytes())
    place = 20 if name == "run.py" else len(content) // 2
    content[place] ^= 1
    (unpacked / name).write_bytes(content)
    ended, _ = run(python, unpacked)
    assert ended.code == 4
    assert ended.err.startswith("Error: ")
    assert ended.out == ""


@pytest.mark.parametrize("name", ["SHA256SUMS", "samples/scores.npy"])
def test_a_missing_file_is_told(python: Path, unpacked: Path, name: str) -> None:
    (unpacked / name).unlink()
    ended, _ = run(python, unpacked)
    assert (ended.code, Path(name).name in ended.err) == (4, True)


def test_a_file_that_no_digest_covers_is_not_read(python: Path, unpacked: Path) -> None:
    sums = unpacked / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if "student.onnx" not in line))
    ended, _ = run(python, unpacked)
    assert ended.code == 4
    assert "student.onnx is damaged" in ended.err


def test_other_logits_fail_parity_and_are_not_timed(python: Path, unpacked: Path) -> None:
    logits = np.load(unpacked / "samples/scores.npy")
    logits[7, 3] += 0.01
    np.save(unpacked / "samples/scores.npy", logits)
    seal(unpacked)
    ended, document = run(python, unpacked)
    assert ended.code == 1
    assert document["checks"][-1]["name"] == "parity"
    assert "differ by at most 0.01" in ended.out
    assert "sample 7" in ended.out
    assert document["latency"] is None


def test_a_model_that_gives_an_image_other_logits_alone_fails_at_batch_1(python: Path, unpacked: Path) -> None:
    plant(unpacked / "student.onnx", other_in_a_batch_of(1))
    seal(unpacked)
    ended, document = run(python, unpacked)
    assert ended.code == 1
    assert [(row["name"], row["verdict"]) for row in document["checks"][1:]] == [
        ("parity", "pass"),
        ("batch 1", "fail"),
    ]
    assert document["latency"] is None


def test_a_logit_that_is_not_finite_fails_and_names_the_sample(python: Path, unpacked: Path) -> None:
    model = onnx.load(unpacked / "student.onnx")
    bias = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [10])
    values = onnx.numpy_helper.to_array(bias).copy()
    values[4] = np.nan
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(model, unpacked / "student.onnx")
    seal(unpacked)
    ended, _ = run(python, unpacked)
    assert ended.code == 1
    assert "one of the logits of sample 0 is not finite" in ended.out


def test_fewer_right_samples_fail(python: Path, unpacked: Path) -> None:
    labels = np.load(unpacked / "samples/labels.npy")
    np.save(unpacked / "samples/labels.npy", (labels + 1) % 10)
    seal(unpacked)
    ended, document = run(python, unpacked)
    assert ended.code == 1
    assert [row["verdict"] for row in document["checks"]] == ["pass", "pass", "pass", "fail"]


def test_a_model_that_does_not_run_is_bad_and_not_a_failed_limit(python: Path, unpacked: Path) -> None:
    (unpacked / "student.onnx").write_bytes(b"no model")
    seal(unpacked)
    ended, _ = run(python, unpacked)
    assert ended.code == 4
    made_with = f"(it was checked with onnxruntime {version('onnxruntime')})"
    assert f"onnxruntime {version('onnxruntime')} cannot run student.onnx here {made_with}" in ended.err


def test_a_latency_that_takes_too_long_is_inconclusive_and_the_rest_is_told(python: Path, unpacked: Path) -> None:
    ended, document = run(python, unpacked, "--timeout", "0.01")
    assert ended.code == 3
    assert [row["verdict"] for row in document["checks"]] == ["pass"] * 4 + ["inconclusive"]
    assert "it was not measured within 0.01 s" in ended.out


def test_the_latency_can_be_left_out(python: Path, unpacked: Path) -> None:
    ended, document = run(python, unpacked, "--no-latency")
    assert ended.code == 0
    assert [row["verdict"] for row in document["checks"]] == ["pass"] * 4 + ["skipped"]
    assert document["latency"] is None


def test_scores_are_compared_on_the_provider_or_not_at_all(python: Path, unpacked: Path) -> None:
    ended, document = run(python, unpacked, "--no-latency", "--provider", "cpu:use_arena=0")
    assert (ended.code, document["place"]["provider"]) == (0, "cpu:use_arena=0"), ended.err
    assert document["checks"][1]["reason"].startswith("cpu:use_arena=0 runs all ")
    ended, _ = run(python, unpacked, "--no-latency", "--provider", "NoSuchThing")
    assert ended.code == 4
    assert "has no provider NoSuchThing; it has " in ended.err
    ended, _ = run(python, unpacked, "--no-latency", "--provider", "Azure")
    assert ended.code == 4
    assert "AzureExecutionProvider runs no operator of this model" in ended.err
    ended, _ = run(Path(sys.executable), unpacked, "--provider", "NoSuchThing", "photo.png")
    assert ended.code == 4
    assert "has no provider NoSuchThing" in ended.err


def test_a_python_without_the_packages_is_told(unpacked: Path) -> None:
    command = [sys.executable, "-I", "-S", str(unpacked / "run.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert (
        f"numpy and onnxruntime are needed here (it was checked with onnxruntime {version('onnxruntime')})"
        in done.stderr
    )


def test_wrong_words_are_usage(python: Path, unpacked: Path) -> None:
    assert run(python, unpacked, "--threads", "0")[0].code == 2
    assert run(python, unpacked, "--timeout", "nan")[0].code == 2


@pytest.mark.parametrize(
    ("machine", "limit", "reasons", "verdict"),
    [
        (None, 1.0, [], "pass"),
        (None, 0.55, [], "inconclusive"),
        (None, 0.45, [], "fail"),
        (None, 0.45, ["the host was busy"], "inconclusive"),
        ("sparc64", 1.0, [], "inconclusive"),
    ],
)
def test_a_limit_on_latency(machine: str | None, limit: float, reasons: list[str], verdict: str) -> None:
    entry = {"value_ms": 0.5, "upper_bound_ms": 0.6, "samples_needed": 44}
    percentiles: list[dict[str, Any]] = [{"fraction": fraction, **entry} for fraction in (0.5, 0.9, 0.95)]
    percentiles.append({"fraction": 0.99, "value_ms": None, "upper_bound_ms": None, "samples_needed": 459})
    latency = {"percentiles": percentiles, "reasons": reasons, "samples_ms": [0.5] * 100, "threads": 1}
    conditions = {"machine": machine, "device": "a device", "limits": {"p90_ms_max": limit, "p99_ms_max": 9.0}}
    rows = {row["name"]: row["verdict"] for row in latency_rows({"latency": conditions}, latency)}
    assert rows["p90_ms_max"] == verdict
    assert rows["p99_ms_max"] == "inconclusive"  # too few samples never pass


@pytest.mark.parametrize(
    ("format_name", "output", "message"),
    [
        ("onnx-int8", "new.tar.gz", "was not exported"),
        ("torchscript", "new.tar.gz", "is not run by onnxruntime; choices are onnx"),
        ("onnx", "taken.tar.gz", "exists already"),
        ("onnx", "new.zip", "is a .tar.gz file"),
        ("onnx", "run/new.tar.gz", "outside of it"),
    ],
)
def test_what_cannot_be_bundled_is_told(
    finished_run: tuple[Path, Ended], tmp_path: Path, format_name: str, output: str, message: str
) -> None:
    root = finished_run[0] if output.startswith("new") else shutil.copytree(finished_run[0], tmp_path / "run")
    (tmp_path / "taken.tar.gz").write_bytes(b"mine")
    with pytest.raises(UsageError, match=message):
        run_bundle(root, format_name=format_name, output=tmp_path / output)
    assert (tmp_path / "taken.tar.gz").read_bytes() == b"mine"
    assert not (tmp_path / "new.tar.gz").exists()


def test_an_unfinished_or_changed_run_is_not_bundled(finished_run: tuple[Path, Ended], tmp_path: Path) -> None:
    root = Path(shutil.copytree(finished_run[0], tmp_path / "run"))

    def failure(kind: type[EcdDeployError]) -> str:
        with pytest.raises(kind) as caught:
            run_bundle(root, format_name="onnx", output=tmp_path / "new.tar.gz")
        assert not (tmp_path / "new.tar.gz").exists()
        return str(caught.value)

    model = (root / "exports/student.onnx").read_bytes()
    (root / "exports/student.onnx").write_bytes(model[:-1] + b"\0")
    assert "was changed" in failure(DigestError)
    (root / "exports/student.onnx").write_bytes(model)
    with open_run(root) as directory:
        (root / "validation.json").unlink()
        directory.record_folder("validation.json")
    assert "ecd-deploy validate" in failure(RunDirectoryError)


@pytest.mark.slow
def test_a_run_that_frames_images_inside_goes_the_whole_way(tmp_path: Path) -> None:
    words = ["run", "digits", "--out", "run", "--set", "train.epochs=2", "--set", "export.preprocessing=full"]
    words += ["--set", "data.image_size=10", "--set", "data.resize=12", "--set", 'export.formats=["onnx","onnx-int8"]']
    words += ["--set", "profile.min_seconds=0.1", "--set", "gate.min_top1=0.1", "--set", "gate.p90_ms_max=1000.0"]
    ended = run_command(words, cwd=tmp_path)
    assert ended.code in {0, 3}, ended.err
    bundled = run_command(["bundle", "run", "--format", "onnx", "--out", "full.tar.gz"], cwd=tmp_path)
    assert bundled.code == 0, bundled.err
    with tarfile.open(tmp_path / "full.tar.gz") as found:
        found.extractall(tmp_path, filter="data")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    checked, classified = (
        subprocess.run(
            [sys.executable, "run.py", *words],
            cwd=tmp_path / "digits-onnx",
            capture_output=True,
            text=True,
            check=False,
        )
        for words in (["--no-latency"], [tmp_path / "photo.png"])
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    predicted = run_command(["predict", "run", "photo.png", "--top", "1", "--json"], cwd=tmp_path)
    (entry,) = json.loads(predicted.out)
    assert classified.stdout.split(": ")[1].startswith(entry["classes"][0]["name"] + " ")
