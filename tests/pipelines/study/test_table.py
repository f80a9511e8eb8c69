"""The table and the plot of a study, of runs that are made up, committed or real."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path

import pytest
import torch

from ecd_deploy.pipelines.study.plot import plot
from ecd_deploy.pipelines.study.run import ArmRun, HeadBest, HeadBests, _peak_memory, run_arm
from ecd_deploy.pipelines.study.study import Arm, Study, run_directory
from ecd_deploy.pipelines.study.table import rows, to_csv, to_markdown
from ecd_deploy.training import HeadTop1

COMMITTED = Path(__file__).parents[3] / "benchmarks" / "results" / "reduced_study.json"


def study_of(*names: str, seeds: tuple[int, ...] = (0, 1, 2), baseline: str = "alone") -> Study:
    arms = tuple(Arm(name=name, label=f"label of {name}") for name in names)
    return Study(name="made-up", recipe="digits", seeds=seeds, baseline=baseline, arms=arms)


def run_of(
    arm: str, seed: int, *, last: HeadTop1, best: HeadTop1 | None = None, own: HeadBests | None = None
) -> ArmRun:
    return ArmRun(
        arm=arm,
        seed=seed,
        recipe_digest="0",
        data_digest="0",
        initial_student="0",
        test_images=1000,
        last=last,
        best=best or last,
        best_epoch=3,
        own_best=own,
        seconds=60.0,
        peak_memory_mib=None,
        threads=1,
    )


def heading(text: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith("| arm"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_teacher_and_ensemble_have_a_deviation_a_best_and_their_own_best() -> None:
    study = study_of("alone", "ecd")
    teachers, ensembles = (0.50, 0.52, 0.57), (0.61, 0.62, 0.63)
    runs = [run_of("alone", seed, last=HeadTop1(student=0.4)) for seed in study.seeds]
    for seed, teacher, ensemble in zip(study.seeds, teachers, ensembles, strict=True):
        own = HeadBests(
            student=HeadBest(epoch=3, validation_top1=0.45),
            teacher=HeadBest(epoch=7, validation_top1=teacher + 0.1),
            ensemble=HeadBest(epoch=5, validation_top1=ensemble + 0.1),
        )
        last = HeadTop1(student=0.41, teacher=teacher, ensemble=ensemble)
        best = HeadTop1(student=0.42, teacher=teacher - 0.1, ensemble=ensemble - 0.1)
        runs.append(run_of("ecd", seed, last=last, best=best, own=own))
    table = rows(study, runs)
    alone, ecd = csv.DictReader(to_csv(table).splitlines())
    for name, values in (("teacher", teachers), ("ensemble", ensembles)):
        mean, deviation = 100 * statistics.fmean(values), 100 * statistics.stdev(values)
        for column, shift in ((f"{name}_last", 0), (f"{name}_best", -10), (f"{name}_validation_best", 10)):
            assert float(ecd[f"{column}_mean"]) == pytest.approx(mean + shift)
            assert float(ecd[f"{column}_std"]) == pytest.approx(deviation)
            assert alone[f"{column}_mean"] == alone[f"{column}_std"] == ""
    text = to_markdown(study, table, runs)
    assert heading(text) == [
        "arm",
        "student, last",
        "student, best",
        "teacher, last",
        "teacher, at the student's best",
        "ensemble, last",
        "ensemble, at the student's best",
        "difference, last [95 %]",
        "minutes",
    ]
    assert "| 53.00 (3.61) | 43.00 (3.61) | 62.00 (1.00) | 52.00 (1.00) |" in text
    assert "the best one is the student's own" in text


def test_columns_that_would_be_empty_are_left_out() -> None:
    study = study_of("alone", seeds=(0,))
    run = run_of("alone", 0, last=HeadTop1(student=0.4))
    assert heading(to_markdown(study, rows(study, [run]), [run])) == [
        "arm",
        "student, last",
        "student, best",
        "minutes",
    ]


def test_an_unfinished_table_says_how_many_seeds_each_arm_has() -> None:
    study = study_of("alone", "ecd", seeds=(0, 1))
    runs = [run_of(arm, seed, last=HeadTop1(student=0.4)) for arm, seed in (("alone", 0), ("alone", 1), ("ecd", 0))]
    text = to_markdown(study, rows(study, runs), runs)
    assert heading(text)[:2] == ["arm", "finished seeds"]
    assert "| label of alone | 2 | 40.00 (0.00) |" in text
    assert "| label of ecd | 1 | 40.00 |" in text


def test_memory_is_labelled_by_where_it_was() -> None:
    study = study_of("alone", "ecd", seeds=(0, 1))
    peaks = {("alone", 0): 10.0, ("alone", 1): 12.0, ("ecd", 0): 30.0}
    runs = [run_of(arm, seed, last=HeadTop1(student=0.4)) for arm in ("alone", "ecd") for seed in (0, 1)]
    on_gpu = [run.model_copy(update={"peak_gpu_memory_mib": peaks.get((run.arm, run.seed))}) for run in runs]
    text = to_markdown(study, rows(study, on_gpu), on_gpu)
    assert heading(text)[-1] == "peak MiB, GPU"
    assert "peak MiB" not in heading(text)
    assert "| 1.0 | 12 |" in text
    assert "| 1.0 | 30 |" in text
    on_host = [run.model_copy(update={"peak_memory_mib": 800.0}) for run in runs]
    assert heading(to_markdown(study, rows(study, on_host), on_host))[-1] == "peak MiB"


def test_results_that_were_committed_before_can_be_read() -> None:
    runs = [ArmRun.model_validate(entry["run"]) for entry in json.loads(COMMITTED.read_text())["raw"]["runs"]]
    names = tuple(dict.fromkeys(run.arm for run in runs))
    study = study_of(*names, baseline=names[0])
    assert "teacher, at the student's best" in heading(to_markdown(study, rows(study, runs), runs))


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_the_plot_names_every_arm_beside_its_difference(seeds: tuple[int, ...]) -> None:
    names = ("alone", *(f"arm{index}" for index in range(20)))
    study = study_of(*names, seeds=seeds)
    runs = [
        run_of(arm, seed, last=HeadTop1(student=0.4 + place / 100 + seed / 1000))
        for place, arm in enumerate(names)
        for seed in seeds
    ]
    curves = {(run.arm, run.seed): (10.0, 20.0) for run in runs}
    image = plot(study, curves, rows(study, runs), "svg").decode()
    # beside each text that it draws, the SVG has the text as a comment: of the legend, and of the axis
    assert image.count("<!-- label of alone -->") == 1
    assert all(image.count(f"<!-- label of {name} -->") == 2 for name in names[1:])
    assert ("95 % interval" in image) == (len(seeds) > 1)


def test_the_plot_says_what_an_arm_is_compared_with_where_there_are_several() -> None:
    study = study_of("alone", "ecd", "other", "third", seeds=(0,))
    arms = (*study.arms[:3], study.arms[3].model_copy(update={"baseline": "other"}))
    study = study.model_copy(update={"arms": arms})
    runs = [run_of(arm.name, 0, last=HeadTop1(student=0.4)) for arm in arms]
    curves = {(run.arm, run.seed): (10.0, 20.0) for run in runs}
    image = plot(study, curves, rows(study, runs), "svg").decode()
    assert "against label of other" in image
    alone = study_of("alone", seeds=(0,))
    assert b"difference" not in plot(alone, curves, rows(alone, runs[:1]), "svg")


def test_a_run_records_each_heads_own_best_and_no_peak_of_a_part(tmp_path: Path) -> None:
    settings = ["data.train_limit=60", "data.test_limit=30", "train.epochs=3", "train.batch_size=18"]
    settings += ["train.trackers=[]", "train.warmup_epochs=0.0", "train.threads=1"]
    ecd = Arm(name="ecd", set=tuple(settings))
    study = Study(name="tiny", recipe="digits", seeds=(0,), baseline="ecd", arms=(ecd,))
    run = run_arm(study, "ecd", 0, tmp_path, own_process=True)
    assert run.peak_memory_mib is not None
    assert run.peak_gpu_memory_mib is None
    root = run_directory(tmp_path, "ecd", 0)
    epochs = [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]
    teacher = [epoch["teacher_validation_top1"] for epoch in epochs]
    assert run.own_best is not None
    assert run.own_best.student.epoch == run.best_epoch
    assert run.own_best.teacher == HeadBest(epoch=1 + teacher.index(max(teacher)), validation_top1=max(teacher))
    again = run_arm(study, "ecd", 0, tmp_path, own_process=True)
    assert again == run.model_copy(update={"peak_memory_mib": None})


def test_the_peak_is_that_of_the_gpu_where_one_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 1024**2)
    assert _peak_memory(own_process=False) == (None, 3.0)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 0)
    assert _peak_memory(own_process=False) == (None, None)
