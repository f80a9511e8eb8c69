from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from ecd_deploy.errors import DigestError, RunDirectoryError
from ecd_deploy.pipelines.report import read_results, write_report
from ecd_deploy.pipelines.report.html import to_html
from ecd_deploy.pipelines.report.markdown import to_markdown
from ecd_deploy.pipelines.report.results import RunResults
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
    assert not re.search(r'(?:src|href)="(?!#)', re.sub(r'xlink:href="#', "", html))
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
