"""A run and a study that train on every image: each step works, and says why there is no validation accuracy."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ecd_deploy.errors import UsageError
from ecd_deploy.pipelines.record.run_directory import open_run
from ecd_deploy.pipelines.report.page.charts.training import Curve, compared_curves
from ecd_deploy.pipelines.report.results import NamedRun, RunResults, read_results
from ecd_deploy.pipelines.study.runner import compare
from ecd_deploy.pipelines.study.study import Arm, Study
from tests.commands import Ended, run_command
from tests.pipelines.report.pages import to_html, to_markdown

EVERYTHING = ("data.validation_fraction=0", "train.select=last")
TINY = ("train.epochs=1", "data.train_limit=60", "data.test_limit=30", "train.threads=1", "train.warmup_epochs=0.0")
WHY = "all training images were used for training (data.validation_fraction is 0)"


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A tiny run on every image, INT8 included: its directory, not to be changed, and how it ended."""
    folder = tmp_path_factory.mktemp("everything")
    limits = (
        "gate.min_top1=0.0",
        "gate.max_drop=1.0",
        "gate.p90_ms_max=1000.0",
        "profile.min_seconds=0.1",
        "profile.max_seconds=1.0",
    )
    formats = 'export.formats=["onnx", "onnx-int8"]'
    overrides = [word for value in (*EVERYTHING, *TINY, *limits, formats) for word in ("--set", value)]
    return folder / "run", run_command(["run", "digits", "--out", "run", "--no-rehearsal", *overrides], cwd=folder)


@pytest.fixture
def results(ended: tuple[Path, Ended], tmp_path: Path) -> RunResults:
    with open_run(Path(shutil.copytree(ended[0], tmp_path / "run"))) as directory:
        return read_results(directory)


def test_a_run_goes_through_to_its_gate_and_report(ended: tuple[Path, Ended]) -> None:
    root, end = ended
    gate = json.loads((root / "gate.json").read_text())
    assert end.code == {"pass": 0, "inconclusive": 3}[gate["verdict"]], end.err  # 3: a busy test machine
    assert f"no validation top-1: {WHY}" in end.out
    assert "student 0.00%" not in end.out
    assert "Traceback" not in end.err
    training = json.loads((root / "training.json").read_text())
    assert training["best"] is None
    assert training["last"]["validation_top1"] is None
    assert "validation_top1" not in (root / "metrics.jsonl").read_text()


def test_the_report_has_no_validation_curve_and_says_why(results: RunResults) -> None:
    html, markdown = to_html(results), to_markdown(results)
    for page in (html, markdown):
        assert f"The weights deployed are those of the last epoch: {WHY}" in page
        assert "Accuracy on the validation split" not in page
    assert "validation top-1, %" not in html
    assert "cross-entropy" in html
    assert "Cross-entropy over 1 epochs; the student has no validation split" in html


def test_beside_a_run_with_a_split_only_that_one_has_a_curve(results: RunResults) -> None:
    epochs = tuple(entry.model_copy(update={"validation_top1": 0.5}) for entry in results.epochs)
    score = results.training.last.model_copy(update={"validation_top1": 0.5})
    training = results.training.model_copy(update={"last": score, "best": score})
    other = replace(results, epochs=epochs, training=training)
    page = to_html(results, [NamedRun("other", other)])
    assert "this run has no validation split, other ends at 50.00%" in page
    assert f"The weights deployed are those of the last epoch: {WHY}" in page
    both = compared_curves(Curve("this", epochs), [Curve("other", epochs)])
    one = compared_curves(Curve("this", results.epochs), [Curve("other", epochs)])
    none = compared_curves(Curve("this", results.epochs), [Curve("other", results.epochs)])
    assert [svg.count(">this<") for svg in (both, one, none)] == [2, 1, 1]
    assert ["validation top-1, %" in svg for svg in (both, one, none)] == [True, True, False]


def test_the_model_card_claims_no_choice_and_no_watch(ended: tuple[Path, Ended]) -> None:
    card = (ended[0] / "MODEL_CARD.md").read_text()
    assert "All training images were trained on: none were kept to choose an epoch or to watch quantisation;" in card
    assert "% of the training images were cut off" not in card
    assert "Nothing watched its accuracy while it was quantised" in card
    assert "the last epoch is deployed" in card


@pytest.mark.slow
def test_each_later_step_can_be_repeated_alone(ended: tuple[Path, Ended], tmp_path: Path) -> None:
    run = shutil.copytree(ended[0], tmp_path / "run")
    for step in ("split", "export", "validate", "gate", "report"):
        again = run_command([step, run], cwd=tmp_path)
        assert again.code in ({0, 3} if step == "gate" else {0}), again.err  # 3: measured on a busy test machine
    resumed = run_command(["train", run, "--resume"], cwd=tmp_path)
    assert resumed.code == 0, resumed.err
    assert f"no validation top-1: {WHY}" in re.sub(r"\s+", " ", resumed.out)


def test_the_command_refuses_to_select_what_cannot_be_known(tmp_path: Path) -> None:
    refused = run_command(
        ["run", "digits", "--out", "run", "--set", EVERYTHING[0], "--set", "train.select=best"], cwd=tmp_path
    )
    assert refused.code == UsageError.exit_code
    assert "data.validation_fraction 0" in refused.err
    assert "set train.select to 'last'" in refused.err
    assert not (tmp_path / "run").exists()


def test_a_study_leaves_the_best_out(tmp_path: Path) -> None:
    changes = (*EVERYTHING, *TINY, "train.batch_size=18", "train.trackers=[]")
    arms = (Arm(name="alone", set=("method.name=plain",)), Arm(name="ecd", set=("method.kernels=2",)))
    study = Study(name="s", recipe="digits", seeds=(0,), baseline="alone", set=changes, arms=arms)
    result = compare(study, tmp_path / "study", resume=False, place="here", console=Console(quiet=True))
    for row in csv.DictReader(result.csv.read_text().splitlines()):
        assert (row["best_mean"], row["best_std"]) == ("", "")
        assert float(row["last_mean"]) > 0
    assert f"There is no *best*: {WHY}" in result.text
    assert result.text.count("best") == 2  # in that sentence
    picture = (tmp_path / "study" / "study.svg").read_text()
    assert "difference from the baseline" in picture
    assert "epoch" not in picture.partition("difference from the baseline")[0]
