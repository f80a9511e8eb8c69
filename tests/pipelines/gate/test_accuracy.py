from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from ecd_deploy.errors import RecipeError
from ecd_deploy.measure.scores.estimates import Estimate
from ecd_deploy.measure.scores.scored import ScoredImages, SliceColumn
from ecd_deploy.pipelines.gate.accuracy import Scores, accuracy_checks
from ecd_deploy.pipelines.gate.check import Check, Verdict, judge, overall
from ecd_deploy.pipelines.gate.limits import read_limits
from ecd_deploy.pipelines.record.names import PREDICTIONS_NAME
from ecd_deploy.pipelines.record.run_directory import open_run
from ecd_deploy.recipe.gate import GateConfig
from tests.commands import Ended, run_command
from tests.measure.scored_images import scored, with_right

PASS, FAIL, UNDECIDED, WARNING = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.WARNING


def decided(images: ScoredImages, baseline: ScoredImages | None = None, **limits: Any) -> list[Check]:
    return accuracy_checks(GateConfig.model_validate(limits), Scores(images, baseline))


GOOD = with_right([490, 480, 470], [500, 500, 500])
MANY = with_right([98] * 10, [100] * 10)


@pytest.mark.parametrize(
    ("limits", "verdict"),
    [
        ({"min_top1": 0.95}, PASS),
        ({"min_top1": 0.97}, FAIL),
        ({"min_balanced_accuracy": 0.945}, PASS),
        ({"min_balanced_accuracy": 0.955}, UNDECIDED),
        ({"min_balanced_accuracy": 0.97}, FAIL),
        ({"min_class_recall": 0.91}, PASS),
        ({"min_class_recall": 0.935}, UNDECIDED),
        ({"min_class_recall": 0.945}, UNDECIDED),  # one of three is so low by chance
        ({"min_class_recall": 0.97}, FAIL),
        ({"max_brier": 0.1}, PASS),
        ({"max_brier": 0.05}, FAIL),
        ({"max_log_loss": 0.3}, PASS),
        ({"max_log_loss": 0.2}, FAIL),
        ({"classes": {"class 1": {"min_recall": 0.94}}}, PASS),
        ({"classes": {"class 1": {"min_recall": 0.955}}}, UNDECIDED),
        ({"classes": {"class 1": {"min_recall": 0.965}}}, FAIL),
        ({"classes": {"class 1": {"min_precision": 0.96}}}, PASS),
        ({"classes": {"class 0": {"min_precision": 0.96}}}, FAIL),
        ({"max_brier_rise": 0.01}, UNDECIDED),
        ({"max_top5_drop": 0.1, "min_top5": 0.9}, None),
    ],
)
def test_each_limit_is_decided_by_its_bound(limits: dict[str, Any], verdict: Verdict | None) -> None:
    if verdict is None:
        with pytest.raises(RecipeError, match="top-5 of 3 classes is always 1"):
            decided(GOOD, **limits)
        return
    (check,) = decided(GOOD, **limits)
    assert check.verdict is verdict
    assert (check.limit,) == tuple(_numbers(limits))


def _numbers(limits: Any) -> list[float]:
    return [limits] if isinstance(limits, float) else [one for value in limits.values() for one in _numbers(value)]


def test_top_five_of_many_classes() -> None:
    (check,) = decided(with_right([98] * 10, [100] * 10), min_top5=0.97)
    assert (check.verdict, check.value) == (PASS, 0.98)  # a wrong one leaves nine equal probabilities


def test_what_is_undecided_says_how_many_images_would_decide() -> None:
    (check,) = decided(GOOD, min_top1=0.955)
    assert check.reason == "1500 images are too few to decide; at these rates about 4754 would"
    (check,) = decided(GOOD, min_top1=0.96)
    too_few = "images are too few to decide; the value"
    assert check.reason == f"1500 {too_few} is exactly the limit: no number would be enough"
    (check,) = decided(GOOD, min_class_recall=0.945)
    assert check.verdict is UNDECIDED
    missed = f"{too_few} misses the limit, and more are needed to show that this is not by chance"
    assert check.reason == f"class 2, 470 of 500; 1500 {missed}"


def test_a_bound_is_computed_once() -> None:
    asked: list[float] = []

    def bound_of(times: float) -> float:
        asked.append(times)
        return 0.8

    check = judge("x", Estimate(0.9, 100, bound_of), 0.7, at_least=True)
    assert (check.verdict, check.bound, asked) == (PASS, 0.8, [1.0])


@pytest.mark.parametrize(
    ("limits", "worse", "verdict"),
    [
        ({}, 0, PASS),
        ({}, 60, FAIL),
        ({"max_baseline_drop": 0.1}, 60, PASS),
        ({"max_balanced_accuracy_drop": 0.01}, 0, PASS),
        ({"max_balanced_accuracy_drop": 0.01}, 10, UNDECIDED),
        ({"max_balanced_accuracy_drop": 0.01}, 60, FAIL),
        ({"max_class_recall_drop": 0.02}, 0, PASS),
        ({"max_class_recall_drop": 0.05}, 40, FAIL),
        ({"max_brier_rise": 0.01}, 0, PASS),
        ({"max_brier_rise": 0.01}, 60, FAIL),
        ({"max_log_loss_rise": 0.05}, 0, PASS),
        ({"max_log_loss_rise": 0.05}, 60, FAIL),
        ({"classes": {"class 0": {"max_recall_drop": 0.02}}}, 0, PASS),
        ({"classes": {"class 0": {"max_recall_drop": 0.02}}}, 60, FAIL),
        ({"classes": {"class 1": {"max_precision_drop": 0.05}}}, 0, PASS),
        ({"classes": {"class 1": {"max_precision_drop": 0.02}}}, 60, FAIL),
    ],
)
def test_each_drop_is_paired_with_the_baseline(limits: dict[str, Any], worse: int, verdict: Verdict) -> None:
    candidate = with_right([490 - worse, 480, 470], [500, 500, 500])
    found = decided(candidate, GOOD, **limits)
    if not (limits or worse) or "max_baseline_drop" in limits:
        assert [check.name for check in found] == ["max_baseline_drop"]
    own = [check for check in found if limits and check.name != "max_baseline_drop"] or found
    assert [check.verdict for check in own] == [verdict]
    if limits:
        assert {check.verdict for check in decided(candidate, None, **limits)} == {UNDECIDED}


def test_a_class_that_is_never_right_is_a_warning_unless_a_limit_decides() -> None:
    images = with_right([50, 0, 50], [50, 50, 50])
    (check,) = decided(images)
    assert (check.verdict, check.limit) == (WARNING, None)
    assert "class 1: no image is classified correctly" in check.reason
    assert overall([check, judged(PASS)]) is PASS
    for limits in ({"classes": {"class 1": {"min_recall": 0.1}}}, {"min_class_recall": 0.1}):
        assert [check.verdict for check in decided(images, **limits)] == [FAIL]
    few = with_right([50, 0, 50], [50, 2, 50])
    assert [check.verdict for check in decided(few, min_class_recall=0.1)] == [UNDECIDED]


def judged(verdict: Verdict) -> Check:
    return Check(name="x", value=1.0, bound=1.0, limit=1.0, unit="", verdict=verdict, reason="")


CAMERAS = SliceColumn("camera", ("day",) * 100 + ("night",) * 100)
SLICED = scored([0, 1] * 100, [0, 1] * 50 + [0, 0] * 50, ("a", "b"), slices=(CAMERAS,))


def test_slices_have_limits_of_their_own_and_a_value_s_takes_the_place_of_the_column_s() -> None:
    found = decided(SLICED, slices={"camera": {"min_top1": 0.9, "night": {"min_top1": 0.4, "max_brier": 2.0}}})
    assert [(check.name, check.limit, check.value, check.verdict) for check in found] == [
        ("slices.camera.day.min_top1", 0.9, 1.0, PASS),
        ("slices.camera.night.min_top1", 0.4, 0.5, PASS),
        ("slices.camera.night.max_brier", 2.0, pytest.approx(0.82), PASS),
    ]
    assert decided(SLICED, slices={"camera": {"min_top1": 0.9}})[1].verdict is FAIL
    before = replace(SLICED, probabilities=np.eye(2, dtype=np.float32)[SLICED.labels])
    drops = decided(SLICED, before, max_baseline_drop=1.0, slices={"camera": {"max_baseline_drop": 0.05}})
    assert [check.verdict for check in drops] == [PASS, PASS, FAIL]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[classes."bb"]\nmin_recall = 0.5', r"gate\.classes\.\"bb\": there is no such class \(did you mean 'b'\?\)"),
        ("[slices.camra]\nmin_top1 = 0.5", r"gate\.slices\.\"camra\": there is no such column .*'camera'.*are camera"),
        ("[slices.camera.dusk]\nmin_top1 = 0.5", r'gate\.slices\.camera\."dusk": there is no such value; .*day, night'),
        ("[slices.camera]\nmin_topp = 0.5", r"camera: min_topp is neither a limit \(did you mean 'min_top5'\?\) nor"),
        ('[slices.camera."day"]\nmin_topp = 0.5', r"gate\.slices\.camera\.day\.min_topp: unknown key"),
        ("[classes.b]\nmin_recal = 0.5", r"gate\.classes\.b\.min_recal: unknown key \(did you mean 'min_recall'\?\)"),
    ],
)
def test_a_limit_for_what_is_not_there_names_the_choices(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "gate.toml"
    path.write_text(f"[gate.{text[1:]}")
    with pytest.raises(RecipeError, match=message):
        accuracy_checks(read_limits(path).config, Scores(SLICED))


def test_limits_for_classes_need_no_header(tmp_path: Path) -> None:
    path = tmp_path / "gate.toml"
    path.write_text('min_top1 = 0.5\n[classes."b"]\nmin_recall = 0.5\n')
    config = read_limits(path).config
    assert (config.min_top1, config.classes["b"].min_recall) == (0.5, 0.5)


def test_the_gate_of_a_run_computes_from_the_kept_probabilities(
    finished_run: tuple[Path, Ended], tmp_path: Path
) -> None:
    run = shutil.copytree(finished_run[0], tmp_path / "run")
    config = tmp_path / "gate.toml"
    config.write_text('[gate]\nmax_log_loss = 0.0001\nmin_top5 = 0.5\n[gate.classes."3"]\nmin_recall = 0.1\n')
    ended = run_command(["gate", run, "--config", config], cwd=tmp_path)
    assert ended.code == 1, ended.err
    assert "max_log_loss" in ended.err
    assert "classes.3.min_recall" in ended.out
    config.write_text('[gate.classes."33"]\nmin_recall = 0.1\n')
    ended = run_command(["gate", run, "--config", config], cwd=tmp_path)
    assert ended.code == 2
    assert "there is no such class (did you mean '3'?); there are 0, 1, 2" in " ".join(ended.err.split())


def test_power_is_shown_and_decides_nothing(finished_run: tuple[Path, Ended], tmp_path: Path) -> None:
    before = (finished_run[0] / "gate.json").read_bytes()
    for more in ([], ["--baseline", str(finished_run[0])]):
        ended = run_command(["gate", finished_run[0], "--power", *more], cwd=tmp_path)
        assert ended.code == 0, ended.err
        assert "max_baseline_drop" in ended.out
    assert "0.0% of them judged differently as by this student and the baseline" in " ".join(ended.out.split())
    assert (finished_run[0] / "gate.json").read_bytes() == before


def test_an_older_run_without_probabilities_says_which_step_to_run_again(
    finished_run: tuple[Path, Ended], tmp_path: Path
) -> None:
    run = shutil.copytree(finished_run[0], tmp_path / "run")
    with open_run(run) as directory:
        tensors = load(directory.read(PREDICTIONS_NAME))
        old = {"labels": tensors["labels"].astype(np.int32), "chosen": tensors["labels"].astype(np.int32)}
        directory.write(PREDICTIONS_NAME, save(old, metadata={"ecd_deploy": '{"classes": [], "test_digest": "d"}'}))
        directory.write("validation.json", directory.read("validation.json"))
    ended = run_command(["gate", run], cwd=tmp_path)
    assert ended.code == 2
    assert f"run `ecd-deploy validate {run}` again" in " ".join(ended.err.split())


def test_a_recipe_s_limit_for_an_unknown_class_ends_the_run_before_it_starts(tmp_path: Path) -> None:
    ended = run_command(["run", "digits", "--out", "run", "--set", "gate.classes.eleven.min_recall=0.5"], cwd=tmp_path)
    assert ended.code == 2
    assert 'gate.classes."eleven": there is no such class; there are 0, 1' in " ".join(ended.err.split())
    assert not (tmp_path / "run").exists()
