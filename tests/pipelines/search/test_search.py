from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from rich.console import Console

from ecd_deploy.data import load_data
from ecd_deploy.errors import RunDirectoryError, StudentError, UsageError
from ecd_deploy.files import write_atomic
from ecd_deploy.pipelines.gate.check import Check, Verdict
from ecd_deploy.pipelines.gate.decide import GateReport
from ecd_deploy.pipelines.gate.limits import LimitsSource
from ecd_deploy.pipelines.record.recipe_file import recipe_to_toml
from ecd_deploy.pipelines.search.candidate import (
    Candidate,
    Cost,
    EarlyStop,
    State,
    decided,
    folder_of,
    measure_cost,
    recipe_of,
)
from ecd_deploy.pipelines.search.result import SearchReport
from ecd_deploy.pipelines.search.search import search
from ecd_deploy.pipelines.search.table import front, pareto, to_markdown
from ecd_deploy.recipe.recipe import Recipe, load_recipe
from tests.commands import run_command
from tests.pipelines.sshd import MISSING, start_server

SIZES = {"resnet8": 300_000, "resnet20": 1_100_000, "resnet32": 1_900_000}


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("digits", ("gate.min_top1=0.9", "gate.max_size_mb=1.5"))


def cost_of(recipe: Recipe, student: str, *, p90: Verdict = Verdict.PASS) -> Cost:
    checks = [("max_size_mb", Verdict.PASS if SIZES[student] <= 1.5e6 else Verdict.FAIL), ("p90_ms_max", p90)]
    return Cost(
        student=student,
        recipe_digest=recipe_of(recipe, student).digest(),
        parameters=SIZES[student] // 4,
        onnx_bytes=SIZES[student],
        place="host",
        p90_ms=SIZES[student] / 1e6,
        checks=tuple(
            Check(name=name, value=2.0, bound=None, limit=1.5, unit="", verdict=verdict, reason="")
            for name, verdict in checks
        ),
    )


def record(recipe: Recipe, out: Path, **outcomes: State) -> None:
    """Leave what a search leaves of students that it has decided."""
    for student in SIZES:
        folder = folder_of(out, student)
        folder.mkdir(parents=True)
        cost = cost_of(recipe, student)
        write_atomic(folder / "cost.json", cost.model_dump_json().encode())
        if student in outcomes:
            top1 = None if outcomes[student] is State.HOPELESS else 0.8
            candidate = Candidate(cost=cost, state=outcomes[student], reason="as recorded", top1=top1, epochs=20)
            write_atomic(folder / "candidate.json", candidate.model_dump_json().encode())


def run(recipe: Recipe, out: Path, *, every: bool = False) -> SearchReport:
    console = Console(quiet=True)
    return search(recipe, ["resnet32", "resnet8", "resnet20"], out, rule=EarlyStop(), resume=True, every=every,
                  console=console)  # fmt: skip


def test_the_smallest_that_passes_is_found_and_nothing_larger_is_trained(recipe: Recipe, tmp_path: Path) -> None:
    record(recipe, tmp_path, resnet8=State.PASS)
    report = run(recipe, tmp_path)
    assert (report.found, report.verdict) == ("resnet8", Verdict.PASS)
    assert [candidate.state for candidate in report.candidates] == [State.PASS, State.NOT_NEEDED, State.RULED_OUT]
    assert "max_size_mb: 2" in report.candidates[2].reason
    written = SearchReport.model_validate_json((tmp_path / "search.json").read_bytes())
    assert written == report
    assert (tmp_path / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert "**resnet8** is the smallest that passes" in (tmp_path / "search.md").read_text()


@pytest.mark.parametrize(
    ("small", "middle", "found", "verdict"),
    [
        (State.FAIL, State.PASS, "resnet20", Verdict.PASS),
        (State.INCONCLUSIVE, State.PASS, "resnet20", Verdict.PASS),
        (State.INCONCLUSIVE, State.FAIL, None, Verdict.INCONCLUSIVE),
        (State.HOPELESS, State.FAIL, None, Verdict.FAIL),
    ],
)
def test_the_verdict(
    recipe: Recipe, tmp_path: Path, small: State, middle: State, found: str | None, verdict: Verdict
) -> None:
    record(recipe, tmp_path, resnet8=small, resnet20=middle)
    report = run(recipe, tmp_path)
    assert (report.found, report.verdict) == (found, verdict)


@pytest.mark.parametrize(("artefact", "suffix"), [("onnx", ""), ("all", " onnx")])
def test_what_was_measured_before_the_training_takes_the_place_of_the_same_check_of_the_gate(
    artefact: str, suffix: str
) -> None:
    recipe = load_recipe("digits", (f"gate.artefact={artefact}", "gate.max_size_mb=0.001", "student.name=resnet8"))
    cost = measure_cost(recipe, load_data(recipe.data, seed=0))
    assert [check.name for check in cost.checks if check.verdict is Verdict.FAIL] == [f"max_size_mb{suffix}"]
    of_gate = tuple(
        Check(name=name + suffix, value=0.9, bound=None, limit=0.5, unit="", verdict=Verdict.PASS, reason="")
        for name in ("min_top1", "max_size_mb")
    )
    report = GateReport(
        verdict=Verdict.PASS,
        confidence=0.95,
        checks=of_gate,
        limits=LimitsSource(file="recipe.toml", sha256="0" * 64, replaces_recipe=False),
        not_limited=(),
        limits_accuracy=True,
    )
    candidate = decided(cost, report, epochs=1)
    assert (candidate.state, candidate.top1) == (State.FAIL, 0.9)


def test_a_search_of_another_gate_or_in_a_full_folder_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    record(recipe, tmp_path, resnet8=State.PASS)
    with pytest.raises(RunDirectoryError, match="belongs to another recipe or gate"):
        run(load_recipe("digits", ("gate.min_top1=0.8",)), tmp_path)
    with pytest.raises(RunDirectoryError, match="add --resume"):
        search(recipe, ["resnet8"], tmp_path, rule=None, resume=False, console=Console(quiet=True))
    with pytest.raises(UsageError, match="name each student once"):
        search(recipe, ["resnet8", "resnet8"], tmp_path / "x", rule=None, resume=False, console=Console(quiet=True))
    with pytest.raises(StudentError, match="resnet9"):
        search(recipe, ["resnet9"], tmp_path / "y", rule=None, resume=False, console=Console(quiet=True))


@pytest.mark.parametrize(
    ("curve", "stops"),
    [
        ([], False),
        ([0.1] * 9, False),  # before half of the epochs
        ([0.1] * 10, True),
        ([0.1] * 9 + [0.75], False),  # 15 points below 0.9 is not more than that
        ([0.76] + [0.1] * 9, False),  # its best counts
        ([0.1] * 20, False),  # done anyway
    ],
)
def test_a_training_is_given_up_late_and_far_below_the_limit(curve: list[float], stops: bool) -> None:
    reason = EarlyStop().reason(curve, 20, 0.9)
    assert (reason is not None) is stops
    assert EarlyStop().reason(curve, 20, None) is None


def test_without_a_validation_split_no_training_is_given_up_and_none_is_said_to_be(tmp_path: Path) -> None:
    recipe = load_recipe("digits", ("gate.min_top1=0.9", "data.validation_fraction=0", "train.select=last"))
    record(recipe, tmp_path, resnet8=State.PASS)
    console = Console(file=io.StringIO(), width=200)
    report = search(recipe, ["resnet8"], tmp_path, rule=EarlyStop(), resume=True, console=console)
    assert report.rule is None
    assert "given up" not in (tmp_path / "search.md").read_text()
    assert isinstance(console.file, io.StringIO)
    assert "no training is given up early: data.validation_fraction is 0" in console.file.getvalue()


def test_the_front_holds_what_nothing_smaller_equals(recipe: Recipe) -> None:
    def candidate(student: str, top1: float | None) -> Candidate:
        return Candidate(cost=cost_of(recipe, student), state=State.FAIL, reason="", top1=top1)

    assert [
        r.cost.student
        for r in front((candidate("resnet8", 0.8), candidate("resnet20", 0.8), candidate("resnet32", 0.9)))
    ] == [
        "resnet8",
        "resnet32",
    ]
    assert front((candidate("resnet8", None),)) == ()


def test_table_and_picture_are_the_same_for_the_same_result(recipe: Recipe, tmp_path: Path) -> None:
    record(recipe, tmp_path, resnet8=State.FAIL, resnet20=State.PASS)
    report = run(recipe, tmp_path)
    assert pareto(report, "svg") == (tmp_path / "pareto.svg").read_bytes()
    assert b"resnet20" in pareto(report, "svg")
    rows = [line for line in to_markdown(report).splitlines() if line.startswith("| resnet")]
    assert [row.split(" | ")[0] for row in rows] == ["| resnet8", "| resnet20", "| resnet32"]


@pytest.mark.skipif(MISSING, reason="no OpenSSH server and client")
def test_a_student_that_is_too_large_for_the_device_over_ssh_is_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary, programs = tmp_path / "remote", tmp_path / "programs"
    temporary.mkdir()
    programs.mkdir()
    server, process = start_server(tmp_path, temporary)
    options = " ".join(f"'{word}'" for word in server.ssh[1:])
    (programs / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} {options} "$@"\n')
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    command = ["search", "digits", "--student", "resnet8", "--out", "found", "--host", f"{server.user}@127.0.0.1"]
    command += ["--python", sys.executable, "--set", "profile.min_seconds=0.05", "--set", "profile.warmup_seconds=0.0"]
    command += ["--set", "gate.peak_memory_mb_max=1.0"]  # Python alone takes more, on a busy machine as well
    try:
        ended = run_command(command, cwd=tmp_path)
    finally:
        process.terminate()
        process.wait()
    assert ended.code == 1, ended.err
    (candidate,) = json.loads((tmp_path / "found/search.json").read_text())["candidates"]
    assert (candidate["state"], candidate["cost"]["place"]) == ("ruled out", "device")
    assert "peak_memory_mb_max" in candidate["reason"]
    assert server.left() == []
    assert not (tmp_path / "found/resnet8/run").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_command_gives_up_and_goes_on_until_one_passes(tmp_path: Path) -> None:
    # A test machine may be busy, and no latency is decided on a busy one.
    limits = load_recipe("digits").gate.model_copy(update={"p90_ms_max": None})
    text = recipe_to_toml(load_recipe("digits", ("train.epochs=4",)).model_copy(update={"gate": limits}))
    (tmp_path / "recipe.toml").write_text(text)
    (tmp_path / "gate.toml").write_text("min_top1 = 0.4\nmax_size_mb = 0.5\n")
    command = ["search", "recipe.toml", "--gate", "gate.toml", "--student", "resnet20", "--student", "resnet8"]
    command += ["--out", "found", "--set", "profile.min_seconds=0.3"]
    ended = run_command([*command, "--stop-margin", "0.0", "--stop-share", "0.01"], cwd=tmp_path, timeout=600)
    assert ended.code == 1, ended.err
    assert "more than 0 points below" in ended.out
    candidates = json.loads((tmp_path / "found/search.json").read_text())["candidates"]
    assert [(candidate["cost"]["student"], candidate["state"]) for candidate in candidates] == [
        ("resnet8", "hopeless"),
        ("resnet20", "ruled out"),
    ]
    ended = run_command([*command, "--resume", "--no-early-stop"], cwd=tmp_path, timeout=600)
    assert ended.code == 0, ended.err
    assert "smallest that passes: resnet8, found/resnet8/run" in ended.out
    lines = (tmp_path / "found/resnet8/run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]
