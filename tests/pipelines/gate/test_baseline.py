from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from ecd_deploy.errors import ArtefactError, DigestError, EcdDeployError, RunDirectoryError
from ecd_deploy.measure.latency.measurement import Comparison, Host, SessionBlocks
from ecd_deploy.measure.predictors.prediction import Predictions
from ecd_deploy.measure.scores.accuracy import PairedTop1, Top1
from ecd_deploy.measure.scores.estimates import Estimate
from ecd_deploy.measure.scores.parity import Parity
from ecd_deploy.pipelines.gate.accuracy import Scores, accuracy_checks
from ecd_deploy.pipelines.gate.baseline import (
    BaselineComparison,
    ClassChange,
    Compared,
    compare_with_baseline,
    latency_ratio,
    ratio_checks,
    read_baseline,
)
from ecd_deploy.pipelines.gate.check import Check, Verdict, judge, overall
from ecd_deploy.pipelines.gate.ci import append_step_summary, comment_markdown, junit, junit_error, summary_markdown
from ecd_deploy.pipelines.record.artefacts import Artefact, ArtefactList
from ecd_deploy.pipelines.record.names import ARTEFACTS_NAME, MANIFEST_NAME, PREDICTIONS_NAME, VALIDATION_NAME
from ecd_deploy.pipelines.record.predictions import StoredPredictions, read_predictions, scores_of, write_predictions
from ecd_deploy.pipelines.record.run_directory import RunDirectory, create_run
from ecd_deploy.pipelines.record.validation import ArtefactValidation, Validation
from ecd_deploy.recipe.gate import GateConfig
from ecd_deploy.recipe.recipe import Recipe, load_recipe
from tests.forging import forge_entry
from tests.measure.models import convolution_model
from tests.measure.scored_images import scored

ONNX = "exports/student.onnx"
CLASSES = ("cat", "dog")
TOP1 = Top1(correct=1, images=1)
PARITY = Parity(images=1, expected_shape=(1, 2), found_shape=(1, 2), max_abs_diff=0.0, argmax_agreement=1.0)
QUICK = ("profile.min_seconds=0.05", "profile.warmup_seconds=0.0")


def chosen(wrong: set[int], images: int = 100) -> Predictions:
    labels = np.arange(images, dtype=np.int64) % 2
    logits = np.eye(2, dtype=np.float32)[labels]
    for index in wrong:
        logits[index] = logits[index][::-1]
    return Predictions(logits, labels)


def stored(predictions: Predictions, classes: tuple[str, ...] = CLASSES) -> StoredPredictions:
    return scores_of(predictions, classes, "digest of the test images")


def fill(
    directory: RunDirectory,
    wrong: set[int],
    classes: tuple[str, ...] = CLASSES,
    data: str = "data",
    *,
    more: Mapping[str, set[int]] = {},
) -> None:
    """What `validate` leaves of a run whose fp32 ONNX file errs about some images, and `more` formats about others."""
    mistakes, top1 = {"onnx": wrong, **more}, PairedTop1(reference=TOP1, candidate=TOP1, lost=0, gained=0)
    artefacts, validated = [], []
    for name in mistakes:
        file = ONNX.replace("onnx", f"{name}.onnx") if name in more else ONNX
        entry = directory.write(file, convolution_model())
        artefacts.append(Artefact(format=name, file=file, sha256=entry.sha256, bytes=entry.bytes))
        validated.append(ArtefactValidation(format=name, file=file, sha256=entry.sha256, parity=PARITY, top1=top1))
    listed = ArtefactList(student_digest="0" * 64, image_shape=(2, 8, 8), artefacts=tuple(artefacts))
    directory.write_json(ARTEFACTS_NAME, listed)
    directory.bind_data(data)
    write_predictions(directory, {name: stored(chosen(images), classes) for name, images in mistakes.items()})
    validation = Validation(artefacts=tuple(validated), onnx_top1=top1, batch_size=1, overlapping_test_images=0)
    directory.write_json(VALIDATION_NAME, validation)


def compare(directory: RunDirectory, baseline: Path, name: str = "onnx", choice: str = "recommended") -> Compared:
    entries = directory.read_json(VALIDATION_NAME, Validation).artefacts
    (entry,) = (entry for entry in entries if entry.format == name)
    own, given = read_predictions(directory)[name], read_baseline(baseline)
    return compare_with_baseline(directory, entry, own, given, GateConfig(artefact=choice))


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("digits", QUICK)


@pytest.fixture
def baseline(tmp_path: Path, recipe: Recipe) -> Path:
    with create_run(tmp_path / "baseline", recipe, resume=False) as directory:
        fill(directory, {0, 1})
    return tmp_path / "baseline"


@pytest.fixture
def candidate(tmp_path: Path, recipe: Recipe) -> Iterator[RunDirectory]:
    with create_run(tmp_path / "candidate", recipe, resume=False) as directory:
        fill(directory, {1, 3, 5, 2})
        yield directory


def test_losses_gains_and_classes_are_counted(candidate: RunDirectory, baseline: Path) -> None:
    before = {path: path.read_bytes() for path in baseline.rglob("*") if path.is_file()}
    found = compare(candidate, baseline).found
    assert (found.images, found.lost, found.gained) == (100, 3, 1)
    assert found.mcnemar_p == pytest.approx(0.625)
    assert [(entry.name, entry.baseline_correct, entry.candidate_correct) for entry in found.regressions] == [
        ("dog", 49, 47)
    ]
    assert len(found.latency.comparison.sessions[0].block_p50_ms) >= 40
    assert before == {path: path.read_bytes() for path in baseline.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "choice", "against", "lost"),
    [
        ("onnx", "all", "student.onnx", 1),
        ("onnx-int8", "all", "student.onnx-int8.onnx", 2),
        ("ort", "all", "student.onnx", 3),  # of which the baseline has none: it is compared with what ships
        ("onnx-int8", "onnx-int8", "student.onnx", 4),
    ],
)
def test_where_all_artefacts_are_decided_about_like_is_compared_with_like(
    tmp_path: Path, recipe: Recipe, name: str, choice: str, against: str, lost: int
) -> None:
    with create_run(tmp_path / "old", recipe, resume=False) as directory:
        fill(directory, set(), more={"onnx-int8": {10, 11}})
    with create_run(tmp_path / "new", recipe, resume=False) as directory:
        fill(directory, {1}, more={"onnx-int8": {10, 11, 12, 13}, "ort": {1, 2, 3}})
        found = compare(directory, tmp_path / "old", name, choice).found
    assert (found.file.startswith("student."), found.baseline_file, found.lost) == (True, against, lost)


def test_a_missing_baseline_is_a_wrong_call(candidate: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="not a run directory"):
        compare(candidate, tmp_path / "absent")


def test_a_baseline_of_other_training_images_is_compared(
    candidate: RunDirectory, tmp_path: Path, recipe: Recipe
) -> None:
    with create_run(tmp_path / "other", recipe, resume=False) as directory:
        fill(directory, {0, 1}, data="with another cut")
    found = compare(candidate, tmp_path / "other").found
    assert (found.images, found.own_images, found.lost, found.gained) == (100, 100, 3, 1)
    assert not found.evaluated_anew


def test_a_baseline_of_other_classes_is_refused(candidate: RunDirectory, tmp_path: Path, recipe: Recipe) -> None:
    with create_run(tmp_path / "other", recipe, resume=False) as directory:
        fill(directory, set(), classes=("cat", "wolf"))
    with pytest.raises(RunDirectoryError, match="only there: wolf; only here: dog") as caught:
        compare(candidate, tmp_path / "other")
    assert caught.value.exit_code == 2


def test_a_baseline_without_predictions_is_refused(candidate: RunDirectory, tmp_path: Path, recipe: Recipe) -> None:
    with create_run(tmp_path / "old", recipe, resume=False) as directory:
        directory.bind_data("data")
    with pytest.raises(RunDirectoryError, match="ecd-deploy validate"):
        compare(candidate, tmp_path / "old")


@pytest.mark.parametrize("name", [ARTEFACTS_NAME, VALIDATION_NAME, MANIFEST_NAME])
def test_a_baseline_of_another_schema_is_refused(candidate: RunDirectory, baseline: Path, name: str) -> None:
    path = baseline / name
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))
    if name != MANIFEST_NAME:
        forge_entry(baseline, name)
    with pytest.raises(RunDirectoryError, match=rf"{name} is not .*its schema_version is 99, and \d is read"):
        compare(candidate, baseline)


def test_changed_predictions_are_refused(candidate: RunDirectory, baseline: Path) -> None:
    data = bytearray((baseline / PREDICTIONS_NAME).read_bytes())
    data[-1] ^= 1
    (baseline / PREDICTIONS_NAME).write_bytes(data)
    with pytest.raises(DigestError):
        compare(candidate, baseline)


def test_predictions_come_back_and_a_nan_is_never_correct(candidate: RunDirectory) -> None:
    given = chosen(set(), 10)
    given.logits[3] = np.nan
    write_predictions(candidate, {"onnx": stored(given)})
    found = read_predictions(candidate)["onnx"]
    assert (found.classes, found.test_digest) == (CLASSES, "digest of the test images")
    assert found.correct.tolist() == [index != 3 for index in range(10)]


def test_what_is_no_predictions_file_is_refused(candidate: RunDirectory) -> None:
    candidate.write(PREDICTIONS_NAME, b"nothing of the kind")
    with pytest.raises(ArtefactError, match="does not hold predictions"):
        read_predictions(candidate)


def comparison(
    ratio: float, *, floor: float = 1.0, spread: float = 0.0, contended: bool = False, count: int = 60
) -> Comparison:
    steps = [1 + spread * (index % 5 - 2) for index in range(count)]
    host = Host(cpu_over_wall=1.0, involuntary_switches=0, contended=contended, reasons=("busy",) if contended else ())
    blocks = ([ratio * step for step in steps], [1.0] * count, [floor] * count)
    names = ("candidate", "baseline", "baseline_again")
    sessions = [
        SessionBlocks(name=name, block_p50_ms=tuple(values)) for name, values in zip(names, blocks, strict=True)
    ]
    return Comparison(schema_version=1, threads=1, sessions=(sessions[0], sessions[1], sessions[2]), host=host)


def found(latency: Comparison, lost: int = 0, gained: int = 0, images: int = 2_000) -> BaselineComparison:
    return BaselineComparison(
        file="new.onnx",
        baseline_file="old.onnx",
        recipe_digest="0",
        model_sha256="0",
        images=images,
        own_images=images,
        evaluated_anew=False,
        lost=lost,
        gained=gained,
        mcnemar_p=1.0,
        regressions=(),
        latency=latency_ratio(latency, 0.95),
    )


@pytest.mark.parametrize(
    ("latency", "verdict"),
    [
        (comparison(1.0), Verdict.PASS),
        (comparison(1.04), Verdict.PASS),
        (comparison(1.3), Verdict.FAIL),
        (comparison(1.1, spread=0.05), Verdict.INCONCLUSIVE),
        (comparison(1.0, contended=True), Verdict.INCONCLUSIVE),
        (comparison(1.5, contended=True), Verdict.INCONCLUSIVE),
        (comparison(1.0, floor=1.2), Verdict.INCONCLUSIVE),
        (comparison(1.0, count=3), Verdict.INCONCLUSIVE),
    ],
)
def test_latency_ratio(latency: Comparison, verdict: Verdict) -> None:
    kept = BaselineComparison.from_json(found(latency).to_json(), "as it was written")
    (check,) = ratio_checks(GateConfig(max_p50_ratio=1.1), kept, None)
    assert check.verdict is verdict


def test_another_host_than_the_device_decides_nothing() -> None:
    (check,) = ratio_checks(GateConfig(), found(comparison(0.5)), "rpi4")
    assert check.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("lost", "gained", "images", "verdict"),
    [
        (0, 0, 2_000, Verdict.PASS),
        (60, 10, 2_000, Verdict.FAIL),
        (20, 10, 2_000, Verdict.PASS),
        (25, 10, 2_000, Verdict.INCONCLUSIVE),
        (0, 0, 20, Verdict.INCONCLUSIVE),
    ],
)
def test_paired_drop(lost: int, gained: int, images: int, verdict: Verdict) -> None:
    labels, same = [0] * images, images - lost - gained
    ours = scored(labels, [1] * lost + [0] * gained + [0] * same, ("a", "b"))
    theirs = scored(labels, [0] * lost + [1] * gained + [0] * same, ("a", "b"))
    checks = accuracy_checks(GateConfig(), Scores(ours, theirs))
    assert [(check.name, check.limit, check.verdict) for check in checks] == [("max_baseline_drop", 0.01, verdict)]


def test_a_limit_without_a_baseline_is_undecided() -> None:
    config = GateConfig(max_baseline_drop=0.01, max_p50_ratio=1.1)
    checks = [*accuracy_checks(config, Scores(scored([0], [0]))), *ratio_checks(config, None, None)]
    assert [(check.verdict, check.reason) for check in checks] == [(Verdict.INCONCLUSIVE, "no baseline was given")] * 2


def test_nan_and_nothing_never_pass() -> None:
    nothing = Estimate(float("nan"), 10, lambda _: 1.0)
    assert judge("x", nothing, 0.5, at_least=True).verdict is Verdict.INCONCLUSIVE
    assert overall([]) is Verdict.INCONCLUSIVE


def check(verdict: Verdict, reason: str = "because <&\"'> \x00 x") -> Check:
    return Check(name="a | b", value=None, bound=0.5, limit=0.4, unit="ms", verdict=verdict, reason=reason)


def test_junit_tells_violated_from_undecided() -> None:
    suite = ET.fromstring(junit([check(verdict) for verdict in Verdict]))
    assert suite.attrib["tests"] == "4"
    assert suite.attrib["failures"] == suite.attrib["errors"] == "1"
    assert [[child.tag for child in case] for case in suite] == [[], ["failure"], ["error"], []]
    assert "because <&\"'>" in next(iter(suite[1])).attrib["message"]


def test_junit_of_an_error() -> None:
    suite = ET.fromstring(junit_error(EcdDeployError("it\nbroke <")))
    assert next(iter(suite[0])).tag == "error"


def test_a_step_summary_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (tmp_path, tmp_path / "absent" / "summary", Path("/dev/full")):
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(name))
        append_step_summary("words")
        assert f"the step summary cannot be written: {caplog.messages.pop()}".endswith(f"(GITHUB_STEP_SUMMARY={name})")


def test_names_in_the_step_summary_are_shown_as_they_are() -> None:
    change = ClassChange(name="a|b\n<script>[x](y)", baseline_correct=2, candidate_correct=1, images=2)
    compared = found(comparison(1.0)).model_copy(update={"regressions": (change,)})
    text = summary_markdown(Verdict.FAIL, [check(Verdict.FAIL)], [compared])
    assert "- class a\\|b &lt;script&gt;[x\\](y): 2 to 1 of 2\n" in text


def test_a_comment_shows_what_did_not_pass_first_and_mentions_nobody() -> None:
    change = ClassChange(name="@team|<b>", baseline_correct=2, candidate_correct=1, images=2)
    compared = found(comparison(1.0)).model_copy(update={"regressions": (change,)})
    checks = [check(Verdict.PASS, "was fine"), check(Verdict.FAIL, "@octocat")]
    text = comment_markdown(Verdict.FAIL, checks, [compared], limits="", warning="low")
    assert text.index("> low") < text.index("octocat") < text.index("<details>") < text.index("was fine")
    assert "@octocat" not in text
    assert "- class @<!-- -->team\\|&lt;b&gt;: 2 to 1 of 2\n" in text
    passed = comment_markdown(Verdict.PASS, checks[:1], [], limits="", warning=None)
    assert "Every check passed." in passed
    assert passed.count("| check |") == 1


def test_a_comment_stays_within_the_platforms_limit() -> None:
    for verdicts in ([Verdict.FAIL] * 2000, [Verdict.PASS] * 2000):
        text = comment_markdown(verdicts[0], [check(verdict) for verdict in verdicts], [], limits="", warning=None)
        assert 50_000 < len(text) < 65_536
        assert text.count("<details>") == text.count("</details>")
        assert text.endswith("`gate.json` has all of it.\n")


def test_step_summary_stays_within_githubs_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    append_step_summary(summary_markdown(Verdict.FAIL, [check(Verdict.FAIL)], [found(comparison(1.0))]))
    assert "ecd-deploy gate: fail" in path.read_text()
    append_step_summary("é" * (1 << 20))
    assert path.stat().st_size <= 1 << 20
