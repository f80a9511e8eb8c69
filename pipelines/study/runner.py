"""Runs a study: every arm with every seed, each a run of its own that can be resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ecd_deploy.errors import EcdDeployError, Interrupted, RunDirectoryError, TrainingError, UsageError
from ecd_deploy.files import write_atomic
from ecd_deploy.pipelines.record.names import ARM_NAME, METRICS_NAME
from ecd_deploy.pipelines.record.run_directory import read_run
from ecd_deploy.pipelines.report.figures import PICTURE_FORMATS
from ecd_deploy.pipelines.study.places import Handle, Place, executor
from ecd_deploy.pipelines.study.plot import plot, read_curves
from ecd_deploy.pipelines.study.run import ArmRun
from ecd_deploy.pipelines.study.slurm import Settings
from ecd_deploy.pipelines.study.study import Study, check_fairness, recipe_of, run_directory
from ecd_deploy.pipelines.study.table import check_pairs, rows, to_csv, to_markdown

_POLL_SECONDS = 0.5

_Key = tuple[str, int]
"""An arm's name and a seed."""


@dataclass(frozen=True)
class Comparison:
    """The files of a finished study; `plot` has a twin as SVG."""

    markdown: Path
    csv: Path
    plot: Path
    text: str


def compare(
    study: Study,
    out: Path,
    *,
    resume: bool,
    jobs: int | None = None,
    place: Place = "processes",
    settings: Settings | None = None,
    console: Console,
) -> Comparison:
    """Run what is not done yet; write `study.md` and `study.csv` after each run, the plot as PNG and SVG at the end.

    Args:
        study: what to run.
        out: gets a run directory an arm and seed.
        resume: keep finished runs and resume interrupted ones.
        jobs: runs at one time; None is one of this machine, or all of them on Slurm.
        place: where they run.
        settings: what a job of Slurm asks for, beyond the threads of its recipe.
        console: for progress.

    Raises:
        UsageError: several jobs would share the cores without saying how, or Slurm does not know a setting.
        RecipeError: an arm's recipe is wrong, or cannot be compared with its baseline.
        RunDirectoryError: the directory holds something and `resume` is False.
        TrainingError: runs failed; the others were finished.
    """
    check_fairness(study)
    planned = [(arm.name, seed) for seed in study.seeds for arm in study.arms]
    recipes = [recipe_of(study, study.arm(arm), seed, out) for arm, seed in planned]
    here = place in ("here", "processes")
    if here and jobs is not None and jobs > 1 and any(recipe.train.threads is None for recipe in recipes):
        raise UsageError(f"--jobs {jobs} needs train.threads in the study: the runs share this machine's cores")
    if not resume and out.is_dir() and any(out.iterdir()):
        raise RunDirectoryError(f"{out} is not empty; add --resume to continue the study in it, or choose another")
    finished = [run for arm, seed in planned if (run := _finished(study, arm, seed, out)) is not None]
    open_runs = [key for key in planned if key not in {(run.arm, run.seed) for run in finished}]
    epochs = sum(recipe.train.epochs for recipe in recipes)
    failures: list[str] = []
    # A pool takes the next run before the last one has ended, and would continue it after an interruption.
    at_once = jobs or (1 if here else len(open_runs))
    with executor(place, at_once, out, console, settings or {}) as start, _progress(console, epochs) as show:
        waiting: dict[_Key, Handle] = {}
        while open_runs or waiting:
            while len(waiting) < at_once and (ready := _ready(study, open_runs, waiting)):
                open_runs.remove(ready)
                waiting[ready] = start(study, *ready, out)
            show(_epochs_done(planned, out))
            ended = [key for key, handle in waiting.items() if handle.done()]
            for key in ended:
                name = f"{key[0]}, seed {key[1]}"
                digest = recipe_of(study, study.arm(key[0]), key[1], out).digest()
                _settle(name, waiting.pop(key), digest, finished, failures, console)
            if ended and finished:
                _write_table(study, finished, out)
            if waiting and not ended:
                time.sleep(_POLL_SECONDS)
        show(_epochs_done(planned, out))
    if failures:
        raise TrainingError(f"{len(failures)} of {len(planned)} runs failed:\n  " + "\n  ".join(failures))
    return _write(study, finished, out)


def _ready(study: Study, open_runs: Sequence[_Key], waiting: Iterable[_Key]) -> _Key | None:
    """The next run whose teacher's run has ended."""
    unfinished = {*open_runs, *waiting}
    for arm, seed in open_runs:
        teacher = study.arm(arm).teacher
        if teacher is None or (teacher, seed) not in unfinished:
            return arm, seed
    return None


def _settle(
    name: str, handle: Handle, recipe_digest: str, finished: list[ArmRun], failures: list[str], console: Console
) -> None:
    try:
        run = handle.result()
        # A job that was submitted before may be of the study as it was then.
        if run.recipe_digest != recipe_digest:
            raise RunDirectoryError("it ran another recipe than the study's; choose another --out")
    except Interrupted:
        raise
    except EcdDeployError as error:
        failures.append(f"{name}: {error}")
        console.print(f"{name}: failed", highlight=False)
    else:
        finished.append(run)
        top1 = f"student {run.last.student:.2%} on the test images"
        console.print(f"{name}: {top1}, {run.seconds:.0f} s", highlight=False)


def _write(study: Study, runs: Sequence[ArmRun], out: Path) -> Comparison:
    check_pairs(study, runs)
    markdown, table, text = _write_table(study, runs, out)
    curves = read_curves(runs, out)
    for format_name in PICTURE_FORMATS:
        write_atomic(out / f"study.{format_name}", plot(study, curves, rows(study, runs), format_name))
    return Comparison(markdown, table, out / "study.png", text)


def _write_table(study: Study, runs: Sequence[ArmRun], out: Path) -> tuple[Path, Path, str]:
    table = rows(study, runs)
    text = to_markdown(study, table, runs)
    markdown, table_file = out / "study.md", out / "study.csv"
    write_atomic(markdown, text.encode())
    write_atomic(table_file, to_csv(table).encode())
    return markdown, table_file, text


def _finished(study: Study, arm: str, seed: int, out: Path) -> ArmRun | None:
    root = run_directory(out, arm, seed)
    if not (root / ARM_NAME).is_file():
        return None
    # not held: another process may be looking at it as well
    run = read_run(root).read_json(ARM_NAME, ArmRun)
    if run.recipe_digest != recipe_of(study, study.arm(arm), seed, out).digest():
        raise RunDirectoryError(f"{root} holds a run of another recipe than the study's; choose another --out")
    return run


def _epochs_done(planned: Sequence[tuple[str, int]], out: Path) -> int:
    logs = (run_directory(out, arm, seed) / METRICS_NAME for arm, seed in planned)
    return sum(log.read_bytes().count(b"\n") for log in logs if log.is_file())


@contextmanager
def _progress(console: Console, epochs: int) -> Iterator[Callable[[int], None]]:
    if not console.is_terminal:
        yield lambda _done: None
        return
    columns = (TextColumn("epochs of all runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=epochs)
        yield lambda done: bar.update(task, completed=done)
