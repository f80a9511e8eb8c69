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
from ecd_deploy.pipelines.study.places import Handle, Key, Place, executor
from ecd_deploy.pipelines.study.plot import plot, read_curves
from ecd_deploy.pipelines.study.run import ArmRun, StackEnd
from ecd_deploy.pipelines.study.slurm import Settings
from ecd_deploy.pipelines.study.study import Study, check_fairness, recipe_of, run_directory
from ecd_deploy.pipelines.study.table import check_pairs, rows, to_csv, to_markdown
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.training.stackable import likeness

_POLL_SECONDS = 0.5


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
    stack: int = 1,
    place: Place = "processes",
    settings: Settings | None = None,
    console: Console,
) -> Comparison:
    """Run what is not done yet; write `study.md` and `study.csv` after each run, the plot as PNG and SVG at the end.

    Args:
        study: what to run.
        out: gets a run directory an arm and seed.
        resume: keep finished runs and resume interrupted ones.
        jobs: runs, or stacks of them, at one time; None is one of this machine, or all of them on Slurm.
        stack: runs of like networks that are trained in the same steps, at most.
        place: where they run.
        settings: what a job of Slurm asks for, beyond the threads of its recipe.
        console: for progress.

    Raises:
        UsageError: several jobs would share the cores without saying how, runs are to be stacked on Slurm, or that
            does not know a setting.
        RecipeError: an arm's recipe is wrong, or cannot be compared with its baseline.
        RunDirectoryError: the directory holds something and `resume` is False.
        TrainingError: runs failed; the others were finished.
    """
    check_fairness(study)
    planned = [(arm.name, seed) for seed in study.seeds for arm in study.arms]
    recipes = [recipe_of(study, study.arm(arm), seed, out) for arm, seed in planned]
    here = place in ("here", "processes")
    _check_use(recipes, jobs, stack, here=here)
    if not resume and out.is_dir() and any(out.iterdir()):
        raise RunDirectoryError(f"{out} is not empty; add --resume to continue the study in it, or choose another")
    finished = [run for arm, seed in planned if (run := _finished(study, arm, seed, out)) is not None]
    open_runs = [key for key in planned if key not in {(run.arm, run.seed) for run in finished}]
    epochs = sum(recipe.train.epochs for recipe in recipes)
    failures: list[str] = []
    # A pool takes the next run before the last one has ended, and would continue it after an interruption.
    at_once = jobs or (1 if here else len(open_runs))
    with executor(place, at_once, out, console, settings or {}) as start, _progress(console, epochs) as show:
        waiting: dict[tuple[Key, ...], Handle] = {}
        while open_runs or waiting:
            while len(waiting) < at_once and (ready := _ready(study, open_runs, waiting, stack)):
                open_runs = [key for key in open_runs if key not in ready]
                waiting[ready] = start(study, ready, out)
            show(_epochs_done(planned, out))
            ended = [keys for keys, handle in waiting.items() if handle.done()]
            for keys in ended:
                for key, outcome in zip(keys, _outcomes(keys, waiting.pop(keys), console), strict=True):
                    digest = recipe_of(study, study.arm(key[0]), key[1], out).digest()
                    _settle(_named(key), outcome, digest, finished, failures, console)
            if ended and finished:
                _write_table(study, finished, out)
            if waiting and not ended:
                time.sleep(_POLL_SECONDS)
        show(_epochs_done(planned, out))
    if failures:
        raise TrainingError(f"{len(failures)} of {len(planned)} runs failed:\n  " + "\n  ".join(failures))
    return _write(study, finished, out)


def _check_use(recipes: Sequence[Recipe], jobs: int | None, stack: int, *, here: bool) -> None:
    if here and jobs is not None and jobs > 1 and any(recipe.train.threads is None for recipe in recipes):
        raise UsageError(f"--jobs {jobs} needs train.threads in the study: the runs share this machine's cores")
    if stack > 1 and not here:
        raise UsageError("--stack trains runs in one process of this machine; with --slurm each is a job of its own")


def _ready(study: Study, open_runs: Sequence[Key], waiting: Iterable[tuple[Key, ...]], stack: int) -> tuple[Key, ...]:
    """The next run whose teacher's run has ended, and those of like networks that are trained with it."""
    unfinished = {*open_runs, *(key for keys in waiting for key in keys)}

    def is_ready(key: Key) -> bool:
        teacher = study.arm(key[0]).teacher
        return teacher is None or (teacher, key[1]) not in unfinished

    def kind(key: Key) -> object:
        return likeness(recipe_of(study, study.arm(key[0]), key[1]))

    ready = [key for key in open_runs if is_ready(key)]
    if stack > 1:
        ready = [key for key in ready if kind(key) == kind(ready[0])]
    return tuple(ready[:stack])


def _outcomes(keys: Sequence[Key], handle: Handle, console: Console) -> Sequence[ArmRun | EcdDeployError]:
    """What became of the runs that were started together.

    Raises:
        Interrupted: a signal came; everything is saved.
    """
    try:
        ended = handle.result()
    except Interrupted:
        raise
    except EcdDeployError as error:
        return [error] * len(keys)
    if not isinstance(ended, StackEnd):
        return [ended]
    if ended.obstacle is not None:
        names = "; ".join(map(_named, keys))
        console.print(f"{names}: trained one by one, for {ended.obstacle}", highlight=False, markup=False)
    return ended.runs


def _named(key: Key) -> str:
    return f"{key[0]}, seed {key[1]}"


def _settle(
    name: str,
    run: ArmRun | EcdDeployError,
    recipe_digest: str,
    finished: list[ArmRun],
    failures: list[str],
    console: Console,
) -> None:
    # A job that was submitted before may be of the study as it was then.
    if isinstance(run, ArmRun) and run.recipe_digest != recipe_digest:
        run = RunDirectoryError("it ran another recipe than the study's; choose another --out")
    if isinstance(run, EcdDeployError):
        failures.append(f"{name}: {run}")
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
