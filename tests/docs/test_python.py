"""The code of docs/python.md, in its order, as a reader types it: in one namespace, from an empty folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ecd_deploy

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    printed = []
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE):
        exec(code, namespace)
        printed.append(capsys.readouterr())
    run, steps, progress, errors = (found.out for found in printed)
    assert re.match(r"(pass|fail|inconclusive) \d+\.\d% of 500 test images\n", run)
    assert "min_top1" in run
    assert steps.endswith("runs/first/report.html\n")
    assert re.fullmatch(r"epoch 1 of 1: \d+\.\d%\ntrain: \d+\.\d s\n0\.\d+\n", progress)
    assert errors.splitlines()[0] == "this TrainConfig cannot be used:"
    assert "epochs: Input should be greater than or equal to 1 (it is 0)" in errors
    assert "learning_rat: unknown key (did you mean 'learning_rate'?)" in errors
    assert {found.err for found in printed} == {""}


def test_the_public_names_are_there_and_typed() -> None:
    for name in ecd_deploy.__all__:
        assert getattr(ecd_deploy, name) is not None
    functions = re.findall(r"^\| `(\w+)\(", PAGE, flags=re.MULTILINE)
    returned = re.findall(r"^\| `\w+\(.*?\)` \| `(\w+)`", PAGE, flags=re.MULTILINE)
    assert len(functions) == 9
    assert {*functions, *returned} <= set(ecd_deploy.__all__)
    events = re.search(r"at each event: (.*?)\. ", PAGE)
    assert events is not None
    assert set(re.findall(r"`(\w+)`", events[1])) == {event.__name__ for event in ecd_deploy.Event.__args__}


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
