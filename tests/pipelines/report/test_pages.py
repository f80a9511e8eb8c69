from __future__ import annotations

import base64
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ecd_deploy.data import load_data
from ecd_deploy.errors import DigestError, RunDirectoryError, UsageError
from ecd_deploy.files import sha256_file
from ecd_deploy.measure.latency.measurement import Comparison, Host, SessionBlocks
from ecd_deploy.measure.scores.classification import confusion_counts
from ecd_deploy.pipelines.gate.baseline import BaselineComparison, LatencyRatio
from ecd_deploy.pipelines.gate.limits import LimitsSource
from ecd_deploy.pipelines.record.predictions import StoredPredictions
from ecd_deploy.pipelines.record.run_directory import open_run
from ecd_deploy.pipelines.report.card import write_model_card
from ecd_deploy.pipelines.report.page.charts.training import Curve, compared_curves
from ecd_deploy.pipelines.report.page.comparison import comparison_section
from ecd_deploy.pipelines.report.page.samples import sample_section
from ecd_deploy.pipelines.report.results import NamedRun, RunResults, read_results
from ecd_deploy.pipelines.run import run_report
from tests.commands import Ended
from tests.measure.scored_images import scored
from tests.pipelines.report.pages import to_html, to_markdown


@pytest.fixture
def root(finished_run: tuple[Path, Ended], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run[0], tmp_path / "run"))


@pytest.fixture
def results(root: Path) -> RunResults:
    with open_run(root) as directory:
        return read_results(directory)


def test_both_pages_hold_the_same_figures(results: RunResults) -> None:
    html, markdown = to_html(results), to_markdown(results)
    top1 = results.validation.onnx_top1.candidate
    for figure in (f"{top1.accuracy:.2%}", f"{top1.correct} of {top1.images}", results.recipe.digest()):
        assert figure in html
        assert figure in markdown
    for check in results.gate.checks:
        assert check.name in html
        assert check.name in markdown


def test_the_page_is_one_file_without_addresses(results: RunResults) -> None:
    html = to_html(results)
    assert not re.search(r'(?:src|href)="(?!#|data:)', re.sub(r'xlink:href="#', "", html))
    assert "@import" not in html
    assert len(re.findall(r'\bid="([^"]+)"', html)) == len(set(re.findall(r'\bid="([^"]+)"', html)))


def test_the_same_results_give_the_same_bytes(results: RunResults) -> None:
    assert to_html(results) == to_html(results)


def test_markup_in_a_name_is_text(results: RunResults) -> None:
    recipe = results.recipe.model_copy(update={"description": "<script>alert(1)</script> a|b"})
    changed = RunResults(**{**results.__dict__, "recipe": recipe})
    assert "<script>alert" not in to_html(changed)


def test_a_run_without_a_teacher_has_its_picture_without_a_cut(results: RunResults) -> None:
    assert "discarded" in to_html(results)
    alone = results.proof.model_copy(update={"auxiliary": ()})
    assert "cut here" not in to_html(RunResults(**{**results.__dict__, "proof": alone}))


def test_confusions_are_counted_by_class_and_choice(results: RunResults) -> None:
    counts = confusion_counts(scored([0, 0, 1, 2, 2, 2], [0, 1, 1, 0, 2, -1]))
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    whole = confusion_counts(results.predictions)
    assert int(whole.diagonal().sum()) == results.validation.onnx_top1.candidate.correct
    assert int(whole.sum()) == results.validation.onnx_top1.candidate.images


def test_samples_show_the_surest_mistake_first_and_its_very_pixels(results: RunResults) -> None:
    images = load_data(results.recipe.data, seed=results.recipe.seed).test
    section = sample_section(images, results.predictions)
    wrong = np.flatnonzero(~results.predictions.correct)
    first = int(wrong[results.predictions.probabilities[wrong].max(axis=1).argmax()])
    sample = section.samples[0]
    assert (sample.true, sample.chosen) == (
        results.predictions.classes[results.predictions.labels[first]],
        results.predictions.classes[results.predictions.chosen[first]],
    )
    picture = Image.open(io.BytesIO(base64.b64decode(sample.address.partition(",")[2])))
    assert picture.size == (64, 64)
    assert np.array_equal(np.asarray(picture)[::8, ::8], images.images[first, 0])
    assert section.samples[-1].correct


def compared(results: RunResults, other: RunResults) -> tuple[list[str], str]:
    """The texts of the one difference, and what stands above it."""
    section = comparison_section(results, [NamedRun("other", other)])
    assert section.tables[0].rows[1][0].text == "other"
    (row,) = section.tables[1].rows
    return [cell.text for cell in row], section.text


def _choosing(own: StoredPredictions, chosen: NDArray[np.int64]) -> StoredPredictions:
    return replace(own, probabilities=np.eye(len(own.classes), dtype=np.float32)[chosen])


def test_a_difference_is_paired_by_image_with_its_interval(results: RunResults) -> None:
    own, images = results.predictions, len(results.predictions.labels)
    wrong, right = np.flatnonzero(~own.correct), np.flatnonzero(own.correct)
    chosen = own.chosen.copy()
    chosen[wrong[:2]] = own.labels[wrong[:2]]  # the other run has 2 that this one loses,
    chosen[right[:9]] = (own.labels[right[:9]] + 1) % 10  # and loses 9
    other = RunResults(**{**results.__dict__, "predictions": _choosing(own, chosen)})
    row, _ = compared(results, other)
    assert row[:2] == ["other", f"{100 * 7 / images:+.2f}"]
    low, _, high = row[2].partition(" to ")
    # Tango's interval is close to Wald's at these counts, and wider on no side by half of its width.
    error = 1.96 * (11 - 49 / images) ** 0.5 / images
    assert 100 * (7 / images - 1.5 * error) < float(low) < 100 * (7 / images - 0.8 * error)
    assert 100 * (7 / images + 0.8 * error) < float(high) < 100 * (7 / images + 1.5 * error)
    assert row[3:5] == ["9 images", "2 images"]
    assert row[5] == "0.06543"  # 2 (1 + 11 + 55) / 2^11, the exact McNemar test
    back, _ = compared(other, results)
    assert back[2] == f"{-float(high):+.2f} to {-float(low):+.2f}"


def test_any_name_of_a_run_stands_in_the_legend(results: RunResults) -> None:
    names = ("_hidden", "$x^2$", "a" * 90)
    svg = compared_curves(Curve("this run", results.epochs), [Curve(name, results.epochs) for name in names])
    for shown in ("this run", "_hidden", "$x^2$", f"...{'a' * 20}<"):
        assert shown in svg


def test_only_runs_with_the_same_test_images_are_paired(results: RunResults) -> None:
    row, text = compared(results, RunResults(**{**results.__dict__, "data_digest": "0" * 64}))
    assert row[1] == "+0.00"
    assert "not paired" not in text
    others = replace(results.predictions, test_digest="0" * 64)
    row, text = compared(results, RunResults(**{**results.__dict__, "predictions": others}))
    assert row[1:3] == ["not paired", "-"]
    assert "other test images are not paired" in text


def test_the_pages_say_how_many_test_images_were_seen_before(root: Path, results: RunResults) -> None:
    for page in (to_html(results), to_markdown(results), (root / "MODEL_CARD.md").read_text()):
        assert "None of the test images is a training or validation image too" in page
    validation = results.validation.model_copy(update={"overlapping_test_images": 3})
    seen = RunResults(**{**results.__dict__, "validation": validation})
    with open_run(root) as directory:
        write_model_card(directory, seen)
    for page in (to_html(seen), to_markdown(seen), (root / "MODEL_CARD.md").read_text()):
        assert "3 of the 500 test images are training or validation images too, pixel by pixel" in page


def test_the_pages_say_whose_limits_decided_and_what_they_leave_open(root: Path, results: RunResults) -> None:
    assert f"Limits: recipe.toml of the run (SHA-256 {sha256_file(root / 'recipe.toml')})." in to_markdown(results)
    assert "decides nothing about accuracy" not in to_markdown(results)
    source = LimitsSource(file="ci.toml", sha256="0" * 64, replaces_recipe=True)
    gate = results.gate.model_copy(update={"limits": source, "limits_accuracy": False})
    blind = RunResults(**{**results.__dict__, "gate": gate})
    with open_run(root) as directory:
        write_model_card(directory, blind)
    for page in (to_html(blind), to_markdown(blind), (root / "MODEL_CARD.md").read_text()):
        assert "This gate decides nothing about accuracy" in page
    assert "ci.toml, in place of the recipe" in to_markdown(blind)


def test_where_the_student_s_file_is_bad_no_page_is_written(root: Path) -> None:
    pages = {path: path.read_bytes() for path in (root / "report.html", root / "report.md", root / "MODEL_CARD.md")}
    (root / "report.md").write_bytes(b"as it was")
    (root / "exports" / "student.onnx").write_bytes(b"another")
    with pytest.raises(DigestError):
        run_report(root)
    assert (root / "report.md").read_bytes() == b"as it was"
    assert all(path.read_bytes() == content for path, content in pages.items() if path.name != "report.md")


def test_a_latency_ratio_is_that_of_the_gate_or_none(results: RunResults) -> None:
    assert compared(results, results)[0][-1] == "not measured"
    host = Host(cpu_over_wall=1.0, involuntary_switches=0, contended=False)
    sessions = tuple(SessionBlocks(name=name, block_p50_ms=(1.0,)) for name in ("a", "b", "c"))
    ratio = LatencyRatio(
        ratio=1.02,
        lower=1.01,
        upper=1.04,
        same_model=1.0,
        comparison=Comparison(schema_version=1, threads=1, sessions=sessions, host=host),
    )
    baseline = BaselineComparison(
        file="student.onnx",
        baseline_file="student.onnx",
        recipe_digest="0",
        model_sha256=results.artefacts.find("onnx").sha256,
        images=1,
        own_images=1,
        evaluated_anew=False,
        lost=0,
        gained=0,
        mcnemar_p=1.0,
        regressions=(),
        latency=ratio,
    )
    gated = results.gate.model_copy(update={"comparisons": (baseline,)})
    assert compared(RunResults(**{**results.__dict__, "gate": gated}), results)[0][-1] == "1.020 [1.010, 1.040]"


def test_runs_of_one_name_are_told_apart_and_none_twice(root: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        shutil.copytree(root, tmp_path / folder / "run")
    before = (tmp_path / "a" / "run" / ".lock").stat().st_mtime_ns
    run_report(root, [tmp_path / "a" / "run", tmp_path / "b" / "run"])
    text = (root / "report.md").read_text()
    assert "| a/run | +0.00 |" in text
    assert "| b/run | +0.00 |" in text
    assert (tmp_path / "a" / "run" / ".lock").stat().st_mtime_ns == before  # only read
    with pytest.raises(UsageError, match="--against"):
        run_report(root, [root])


def test_a_changed_result_is_refused(root: Path) -> None:
    content = json.loads((root / "gate.json").read_text())
    content["verdict"] = "pass"
    (root / "gate.json").write_text(json.dumps(content))
    with pytest.raises(DigestError, match=r"gate\.json was changed"):
        run_report(root)


def test_an_unfinished_run_names_the_missing_step(root: Path) -> None:
    with open_run(root) as directory:
        (root / "gate.json").unlink()
        directory.record_folder("gate.json")
    with pytest.raises(RunDirectoryError, match="ecd-deploy gate"):
        run_report(root)
