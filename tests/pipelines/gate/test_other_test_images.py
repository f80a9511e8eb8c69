"""A baseline that was tested on other images, or trained on others: by the real command, on the digits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from ecd_deploy.data import load_data
from ecd_deploy.errors import RunDirectoryError
from ecd_deploy.pipelines.gate.rerun import predict_anew
from ecd_deploy.pipelines.record.artefacts import read_artefacts
from ecd_deploy.pipelines.record.predictions import read_predictions
from ecd_deploy.pipelines.record.run_directory import create_run, read_run
from ecd_deploy.recipe.recipe import load_recipe
from tests.commands import Ended, run_command

TINY = (
    "train.epochs=1",
    "data.train_limit=300",
    "profile.min_seconds=0.05",
    "profile.warmup_seconds=0.0",
    "profile.max_seconds=1.0",
)
BLIND = ("gate.min_top1=0.0", "gate.max_drop=1.0", "gate.p90_ms_max=1000.0")


def tiny_run(root: Path, *changes: str) -> Path:
    words = [word for value in (*TINY, *BLIND, *changes) for word in ("--set", value)]
    ended = run_command(["run", "digits", "--out", root, "--no-rehearsal", *words], cwd=root.parent)
    assert ended.code in {0, 3}, ended.err
    return root


@pytest.fixture(scope="module")
def fewer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose test set is a part of that of the finished run."""
    return tiny_run(tmp_path_factory.mktemp("fewer") / "run", "data.test_limit=100")


def gated(finished: Path, baseline: Path, folder: Path) -> tuple[Ended, Path]:
    run = Path(shutil.copytree(finished, folder / "run"))
    return run_command(["gate", run, "--baseline", baseline], cwd=folder), run


@pytest.mark.slow
def test_another_seed_and_cut_leave_the_test_images_and_the_pairing(
    finished_run: tuple[Path, Ended], tmp_path: Path
) -> None:
    baseline = tiny_run(tmp_path / "baseline", "seed=1", "data.validation_fraction=0.3")
    ended, run = gated(finished_run[0], baseline, tmp_path)
    assert ended.code in {0, 3}, ended.err
    (found,) = json.loads((run / "gate.json").read_text())["comparisons"]
    assert (found["images"], found["own_images"], found["evaluated_anew"]) == (500, 500, False)
    own, theirs = (read_predictions(read_run(root))["onnx"] for root in (run, baseline))
    assert found["lost"] == int((theirs.correct & ~own.correct).sum())
    assert found["gained"] == int((own.correct & ~theirs.correct).sum())


def test_a_baseline_with_other_test_images_is_evaluated_anew(
    finished_run: tuple[Path, Ended], fewer: Path, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in fewer.rglob("*") if path.is_file()}
    ended, run = gated(finished_run[0], fewer, tmp_path)
    assert ended.code in {0, 3}, ended.err
    (found,) = json.loads((run / "gate.json").read_text())["comparisons"]
    assert (found["images"], found["own_images"], found["evaluated_anew"]) == (500, 100, True)
    directory = read_run(run)
    test = load_data(directory.recipe.data, seed=directory.recipe.seed).test
    path = fewer / "exports" / "student.onnx"
    (described,) = onnx.load(path).metadata_props
    mean, std = (np.array(json.loads(described.value)[name]).reshape(1, -1, 1, 1) for name in ("mean", "std"))
    images = ((test.images / 255 - mean) / std).astype(np.float32)
    (logits,) = onnxruntime.InferenceSession(path).run(None, {"images": images})
    theirs = logits.argmax(axis=1) == test.labels
    own = read_predictions(directory)["onnx"].correct
    assert (found["lost"], found["gained"]) == (int((theirs & ~own).sum()), int((own & ~theirs).sum()))
    assert run_command(["report", run, "--against", fewer], cwd=tmp_path).code == 0
    for said in (ended.out, (run / "report.md").read_text()):
        words = " ".join(said.split())
        assert "The baseline's run had other test images, 100: its artefact was evaluated anew" in words
    assert before == {path: path.read_bytes() for path in fewer.rglob("*") if path.is_file()}


def test_a_baseline_that_takes_images_of_another_size_is_refused(fewer: Path, tmp_path: Path) -> None:
    baseline = read_run(fewer)
    artefact = read_artefacts(baseline).find("onnx")
    larger = load_recipe("digits", ("data.image_size=12",))
    with (
        create_run(tmp_path / "larger", larger, resume=False) as directory,
        pytest.raises(RunDirectoryError, match=r"takes 1 x 8 x 8, they are 1 x 12 x 12 \(channels x height x width\)"),
    ):
        predict_anew(baseline, artefact, directory)
