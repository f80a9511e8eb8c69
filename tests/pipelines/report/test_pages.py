from __future__ import annotations

import base64
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecd_deploy.data import load_data
from ecd_deploy.errors import DigestError, RunDirectoryError
from ecd_deploy.pipelines.predictions import StoredPredictions
from ecd_deploy.pipelines.report import read_results, write_report
from ecd_deploy.pipelines.report.classes import confusion_counts
from ecd_deploy.pipelines.report.html import to_html
from ecd_deploy.pipelines.report.markdown import to_markdown
from ecd_deploy.pipelines.report.results import RunResults
from ecd_deploy.pipelines.report.samples import sample_section
from ecd_deploy.pipelines.run_directory import open_run
from tests.conftest import Ended


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
    assert "thrown away" in to_html(results)
    alone = results.proof.model_copy(update={"auxiliary": ()})
    assert "cut here" not in to_html(RunResults(**{**results.__dict__, "proof": alone}))


def test_confusions_are_counted_by_class_and_choice(results: RunResults) -> None:
    labels, chosen = np.array([0, 0, 1, 2, 2, 2], np.int32), np.array([0, 1, 1, 0, 2, -1], np.int32)
    counts = confusion_counts(StoredPredictions(labels, chosen, ("a", "b", "c")))
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    whole = confusion_counts(results.predictions)
    assert int(whole.diagonal().sum()) == results.validation.onnx_top1.candidate.correct
    assert int(whole.sum()) == results.validation.onnx_top1.candidate.images


def test_samples_show_what_is_wrong_first_and_the_very_pixels(results: RunResults) -> None:
    images = load_data(results.recipe.data, seed=results.recipe.seed).test
    section = sample_section(images, results.predictions)
    first = int(np.flatnonzero(~results.predictions.correct)[0])
    sample = section.samples[0]
    assert (sample.true, sample.chosen) == (
        results.predictions.classes[results.predictions.labels[first]],
        results.predictions.classes[results.predictions.chosen[first]],
    )
    picture = Image.open(io.BytesIO(base64.b64decode(sample.address.partition(",")[2])))
    assert picture.size == (64, 64)
    assert np.array_equal(np.asarray(picture)[::8, ::8], images.images[first, 0].numpy())
    assert section.samples[-1].correct


def test_a_changed_result_is_refused(root: Path) -> None:
    content = json.loads((root / "gate.json").read_text())
    content["verdict"] = "pass"
    (root / "gate.json").write_text(json.dumps(content))
    with open_run(root) as directory, pytest.raises(DigestError, match=r"gate\.json was changed"):
        write_report(directory)


def test_an_unfinished_run_names_the_missing_step(root: Path) -> None:
    with open_run(root) as directory:
        (root / "gate.json").unlink()
        directory.record_folder("gate.json")
        with pytest.raises(RunDirectoryError, match="ecd-deploy gate"):
            write_report(directory)
