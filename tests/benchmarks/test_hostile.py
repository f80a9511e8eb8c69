"""A short version of `make hostile`: its quickest cases, and whether it would notice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.hostile import all_cases
from benchmarks.hostile.case import Call, Case, Place, attempt
from tests.commands import Ended

CASES: Mapping[str, Case] = {case.full_name: case for case in all_cases()}
QUICK = (
    *(name for name in CASES if name.startswith(("recipe: recipe: a key", "recipe: --set: a", "run: verify: a"))),
    *(
        "run: gate: recipe.toml that is not UTF-8",
        "run: gate: MANIFEST.json is a link",
        "gate: gate --config: brackets",
    ),
    *("student: file: exits when it is imported", "images: class with a terminal escape", "ONNX: a pickle"),
)


def test_each_case_has_a_name_of_its_own_and_none_may_end_with_an_internal_error() -> None:
    assert len(CASES) == len(all_cases())
    assert len(CASES) > 300
    assert all(case.codes and not case.codes & {70, -9, -11} for case in CASES.values())


@pytest.mark.parametrize("name", QUICK)
def test_a_hostile_input_is_refused(name: str, finished_run: tuple[Path, Ended], tmp_path: Path) -> None:
    outcome = attempt(CASES[name], Place(tmp_path / "case", finished_run[0]))
    assert outcome.missed == ()
    assert outcome.code in {2, 4}


def test_what_is_missed_is_said(finished_run: tuple[Path, Ended], tmp_path: Path) -> None:
    def plant(place: Place) -> Call:
        (place.run() / "junit.xml").unlink()
        return Call(words=("gate", "run"))

    case = Case(
        kind="run",
        name="one that is sound",
        plant=plant,
        codes=frozenset({4}),
        says="cannot be used",
        check=lambda folder, ended: f"it looked at {folder.name} and {ended.code}",
    )
    found = attempt(case, Place(tmp_path / "case", finished_run[0]))
    assert found.code in {0, 3}
    assert "run/junit.xml" in found.left
    code, says, makes, looked = found.missed
    assert (code, says) == (f"exit code {found.code} instead of [4]", "does not say 'cannot be used'")
    assert makes.startswith("makes or changes run/")
    assert looked == f"it looked at case and {found.code}"
    allowed = replace(case, codes=frozenset({0, 3}), says="", writes=("run/*",), check=None)
    assert attempt(allowed, Place(tmp_path / "again", finished_run[0])).missed == ()
