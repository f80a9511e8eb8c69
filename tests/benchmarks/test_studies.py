"""The committed studies: each name has its results, of the study that it stands for."""

from __future__ import annotations

import json

import pytest

from benchmarks.__main__ import BENCHMARKS, ON_REQUEST, main
from benchmarks.figures import RESULTS
from benchmarks.studies import STUDIES
from ecd_deploy.pipelines.study.study import load_study


@pytest.mark.parametrize("name", STUDIES)
def test_the_committed_result_is_of_the_named_study(name: str) -> None:
    document = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert document["benchmark"] == name
    assert document["setting"]["name"] == load_study(STUDIES[name]).name
    assert name in ON_REQUEST


def test_every_benchmark_that_is_no_study_is_a_module() -> None:
    folder = RESULTS.parent
    modules = {path.stem for path in (*folder.glob("*.py"), *(init.parent for init in folder.glob("*/__init__.py")))}
    assert {name for name in BENCHMARKS + ON_REQUEST if name not in STUDIES} <= modules


def test_an_unknown_name_lists_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nonsense"]) == 2
    assert "few_images_study" in capsys.readouterr().err
