"""A student that was trained further: nothing that was made of the old one is gated, reported or packed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import run_command

TINY = (
    "data.train_limit=200",
    "data.test_limit=50",
    "profile.min_seconds=0.05",
    "profile.warmup_seconds=0.0",
    "profile.max_seconds=1.0",
)
BLIND = ("gate.min_top1=0.0", "gate.max_drop=1.0", "gate.p90_ms_max=1000.0")


def changes(*values: str) -> list[str]:
    return [word for value in (*TINY, *BLIND, *values) for word in ("--set", value)]


@pytest.fixture(scope="module")
def trained_on(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose training was then continued and split, and nothing more."""
    root = tmp_path_factory.mktemp("stale") / "run"
    finished = run_command(
        ["run", "digits", "--out", root, "--no-rehearsal", *changes("train.epochs=1")], cwd=root.parent
    )
    assert finished.code in {0, 3}, finished.err
    resume = ["train", str(root), "--resume", "--accept-changes", "--recipe", "digits", *changes("train.epochs=2")]
    for words in (resume, ["split", str(root)]):
        ended = run_command(words, cwd=root.parent)
        assert ended.code == 0, ended.err
    return root


@pytest.mark.parametrize("command", ["gate", "report", "bundle"])
def test_what_was_made_before_is_refused_and_the_step_named(trained_on: Path, command: str) -> None:
    ended = run_command([command, trained_on], cwd=trained_on.parent)
    assert ended.code == 2, ended.out
    assert f"run `ecd-deploy export {trained_on}` again" in " ".join(ended.err.split())
    assert "Traceback" not in ended.err


def test_each_step_that_is_run_again_leads_to_the_next(trained_on: Path) -> None:
    for done, named in (("export", "validate"), ("validate", "profile"), ("profile", None)):
        assert run_command([done, trained_on], cwd=trained_on.parent).code in {0, 3}
        ended = run_command(["gate", trained_on], cwd=trained_on.parent)
        if named is None:
            assert ended.code in {0, 3}, ended.err
        else:
            assert ended.code == 2
            assert f"run `ecd-deploy {named} {trained_on}` again" in " ".join(ended.err.split())
