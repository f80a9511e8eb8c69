"""Every row of every study for one short epoch, and what a comparison is made of."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ecd_deploy.errors import RecipeError, RunDirectoryError, TrainingError, UsageError
from ecd_deploy.pipelines.study.places import Place
from ecd_deploy.pipelines.study.run import ArmRun
from ecd_deploy.pipelines.study.runner import compare
from ecd_deploy.pipelines.study.study import BUILTIN_STUDIES, Arm, Study, check_fairness, load_study, recipe_of
from ecd_deploy.pipelines.study.table import check_pairs
from ecd_deploy.recipe.recipe import Recipe

TINY: tuple[str, ...] = (
    "data.train_limit=40",
    "data.test_limit=30",
    "train.epochs=1",
    "train.batch_size=18",
    "train.trackers=[]",
    "train.warmup_epochs=0.0",
    "train.threads=1",
)


TEACHER = Arm(name="trained", baseline="trained", set=("method.name=plain", "student.name=resnet20"))


def quiet() -> Console:
    return Console(quiet=True)


def rows() -> dict[str, Arm]:
    """The arms of all studies as they are on digits, those that are then the same only once.

    Each system is tried on ResNet-8, and each student with ECD; torchvision's do not take the one channel of digits.
    """
    found: dict[str, Arm] = {}
    for name in BUILTIN_STUDIES.names():
        study = load_study(name)
        for arm in study.arms:
            changes = [entry for entry in (*study.set, *arm.set) if entry.startswith(("method.", "train.label_smooth"))]
            if any(entry.startswith("train.warmup_epochs") for entry in arm.set):
                changes.append("train.warmup_epochs=0.5")  # of the one epoch that there is
            if arm.teacher is not None:
                changes.append("method.pretrained.negatives=16")
            systems = [changes]
            if not any(entry.startswith(("method.name", "method.logits")) for entry in arm.set):
                students = [entry for entry in (*study.set, *arm.set) if entry.startswith("student.name")]
                systems += [[*students, "method.kernels=2"]] if ":" not in "".join(students) else []
            teacher = None if arm.teacher is None else TEACHER.name
            for system in systems:
                key = json.dumps(sorted(system))
                found.setdefault(key, Arm(name=f"{name}.{arm.name}", set=tuple(system), teacher=teacher))
    return found


def tiny(*arms: Arm, seeds: tuple[int, ...] = (0,), extra: tuple[str, ...] = ()) -> Study:
    baseline = Arm(name="baseline", set=("method.name=plain",))
    return Study(
        name="tiny", recipe="digits", seeds=seeds, baseline="baseline", set=(*TINY, *extra), arms=(baseline, *arms)
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's folder with the finished run of `TEACHER` in it."""
    folder = tmp_path_factory.mktemp("trained")
    study = Study(name="row", recipe="digits", seeds=(0,), baseline=TEACHER.name, set=TINY, arms=(TEACHER,))
    compare(study, folder, resume=False, place="here", console=quiet())
    return folder


def rows_by_speed() -> Iterator[Any]:
    """One row of each table, and the others among the slow tests."""
    tables = set[str]()
    for arm in rows().values():
        table = arm.name.partition(".")[0]
        yield pytest.param(arm, id=arm.name, marks=[pytest.mark.slow] * (table in tables))
        tables.add(table)


@pytest.mark.parametrize("arm", list(rows_by_speed()))
def test_every_row_of_the_papers_tables_runs(arm: Arm, trained: Path, tmp_path: Path) -> None:
    arms = (arm,) if arm.teacher is None else (arm, TEACHER)
    study = Study(name="row", recipe="digits", seeds=(0,), baseline=arm.name, set=TINY, arms=arms)
    out = shutil.copytree(trained, tmp_path / "study")
    result = compare(study, out, resume=True, place="here", console=quiet())
    other, *_ = csv.DictReader(result.csv.read_text().splitlines())
    assert other["arm"] == arm.name
    assert result.plot.is_file()
    method = recipe_of(study, arm, 0).method
    assert bool(other["teacher_last_mean"]) == (method.name != "plain")
    assert bool(other["ensemble_last_mean"]) == (method.logits == "ensemble")
    record = json.loads((out / arm.name / "seed-0" / "metrics.jsonl").read_text())
    assert ("logits_loss" in record) == (method.used_logits != "none")
    assert ("features_loss" in record) == (method.features != "none")
    assert ("pretrained_loss" in record) == (method.pretrained is not None)
    assert ("branches_loss" in record) == (method.name == "one")


@pytest.mark.parametrize("name", BUILTIN_STUDIES.names())
def test_studies_can_be_read_and_are_fair(name: str) -> None:
    study = load_study(name)
    check_fairness(study)
    recipes = [recipe_of(study, arm, seed) for arm in study.arms for seed in study.seeds]
    assert len({recipe.digest() for recipe in recipes}) == len(recipes)
    assert all(isinstance(recipe, Recipe) for recipe in recipes)


@pytest.mark.slow
@pytest.mark.parametrize(("place", "jobs"), [("processes", 2)])
def test_runs_in_other_processes_are_the_same_and_are_gone_on_with(place: Place, jobs: int, tmp_path: Path) -> None:
    study = tiny(Arm(name="ecd", claim="a claim"), seeds=(0, 1))
    here = compare(study, tmp_path / "here", resume=False, place="here", console=quiet())
    there = compare(study, tmp_path / "there", resume=False, jobs=jobs, place=place, console=quiet())
    varying = {"minutes", "peak_memory_mib"}
    tables = [list(csv.DictReader(result.csv.read_text().splitlines())) for result in (here, there)]
    expected, found = ([{k: v for k, v in row.items() if k not in varying} for row in table] for table in tables)
    assert found == expected
    assert all(float(row["peak_memory_mib"]) > 100 for row in tables[1])
    assert "| a claim |" in there.text
    assert there.plot.read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in there.plot.with_suffix(".svg").read_bytes()

    kept = tmp_path / "there" / "baseline" / "seed-0" / "arm.json"
    before = kept.read_bytes()
    (tmp_path / "there" / "ecd" / "seed-1" / "arm.json").unlink()
    with pytest.raises(RunDirectoryError, match="add --resume"):
        compare(study, tmp_path / "there", resume=False, place="here", console=quiet())
    again = compare(study, tmp_path / "there", resume=True, place="here", console=quiet())
    assert kept.read_bytes() == before
    (row,) = [row for row in csv.DictReader(again.csv.read_text().splitlines()) if row["arm"] == "ecd"]
    assert row["difference"] == expected[1]["difference"]


def test_arms_of_a_seed_start_from_one_student(tmp_path: Path) -> None:
    study = tiny(Arm(name="ecd"))
    compare(study, tmp_path, resume=False, place="here", console=quiet())
    runs = [ArmRun.model_validate_json(path.read_text()) for path in sorted(tmp_path.rglob("arm.json"))]
    assert runs[0].initial_student == runs[1].initial_student
    check_pairs(study, runs)
    for what in ("initial_student", "data_digest"):
        other = runs[1].model_copy(update={what: "0" * 64})
        with pytest.raises(TrainingError, match=what.replace("_", " ")):
            check_pairs(study, [runs[0], other])


def test_the_interval_is_students_t(tmp_path: Path) -> None:
    study = tiny(Arm(name="ecd"), seeds=(0, 1, 2))
    result = compare(study, tmp_path, resume=False, place="here", console=quiet())
    runs = [ArmRun.model_validate_json(path.read_text()) for path in sorted(tmp_path.rglob("arm.json"))]
    top1 = {(run.arm, run.seed): 100 * run.last.student for run in runs}
    differences = [top1["ecd", seed] - top1["baseline", seed] for seed in range(3)]
    mean = sum(differences) / 3
    half = 4.302653 * math.sqrt(sum((value - mean) ** 2 for value in differences) / 2 / 3)
    row = list(csv.DictReader(result.csv.read_text().splitlines()))[1]
    assert float(row["difference_low"]) == pytest.approx(mean - half, rel=1e-5, abs=1e-9)
    assert float(row["difference_high"]) == pytest.approx(mean + half, rel=1e-5, abs=1e-9)
    assert "With 3 seeds the interval is wide" in result.text


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    longer = tiny(Arm(name="longer", set=("train.epochs=2",)))
    with pytest.raises(RecipeError, match=r"train\.epochs is 2 and not 1"):
        compare(longer, tmp_path, resume=False, place="here", console=quiet())
    smoothed = tiny(Arm(name="smoothed", set=("train.label_smoothing=0.1",)))
    with pytest.raises(RecipeError, match=r"train\.label_smoothing is 0\.1 and not 0\.0.*a baseline of its own"):
        check_fairness(smoothed)
    with pytest.raises(RecipeError, match="did you mean 'table-1'"):
        load_study("table1")
    with pytest.raises(RecipeError, match="logits 'mutual' needs a teacher"):
        check_fairness(tiny(Arm(name="wrong", set=("method.name=plain", "method.logits=mutual"))))
    loose = tiny().model_copy(update={"set": TINY[:-1], "recipe": "cifar100-resnet20"})
    with pytest.raises(UsageError, match=r"needs train\.threads"):
        compare(loose, tmp_path, resume=False, jobs=2, console=quiet())


def test_a_run_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    study = tiny(Arm(name="bad", set=("method.stages=[7]",)), Arm(name="ecd"))
    with pytest.raises(TrainingError, match="1 of 3 runs failed:\n  bad, seed 0: the student has no stage 7"):
        compare(study, tmp_path, resume=False, place="here", console=quiet())
    assert len(list(tmp_path.rglob("arm.json"))) == 2
    assert "**Not finished: 2 of 3 runs are in this table.**" in (tmp_path / "study.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_command_alone_lets_its_runs_save(tmp_path: Path, number: signal.Signals, code: int) -> None:
    settings = ("train.epochs=400", "data.train_limit=100", "train.batch_size=18", "train.trackers=[]")
    lines = ["name = 'long'", "recipe = 'digits'", "seeds = [0, 1]", "baseline = 'baseline'"]
    lines += [f"set = {json.dumps(settings)}", "[[arms]]", "name = 'baseline'", "set = ['method.name=plain']"]
    (tmp_path / "long.toml").write_text("\n".join(lines))
    command = [sys.executable, "-m", "ecd_deploy", "compare", "long.toml", "--out", "study", "--jobs", "2"]
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        started = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, inherited)
    logs = [tmp_path / "study" / "baseline" / f"seed-{seed}" / "metrics.jsonl" for seed in (0, 1)]
    while not all(log.is_file() and log.read_bytes().count(b"\n") > 1 for log in logs):
        assert started.poll() is None, started.communicate()
        time.sleep(0.1)
    os.kill(started.pid, number)
    out, err = started.communicate(timeout=120)
    assert started.returncode == code, err
    assert "waiting until the runs have saved" in out
    assert "Traceback" not in err
    for log in logs:
        state = json.loads((sorted((log.parent / "checkpoints").glob("step-*"))[-1] / "state.json").read_text())
        assert len(state["history"]) == log.read_bytes().count(b"\n") < 400
        assert "in use" not in err
