"""The commands that run the pipeline: all of it, or one step."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ecd_deploy.cli.ending import console, finish
from ecd_deploy.cli.training import TrainingCommand
from ecd_deploy.errors import GateFailed, RunDirectoryError, UsageError

if TYPE_CHECKING:
    from ecd_deploy.recipe.recipe import Recipe

_SKIP_BAD = ("data.skip_bad=true",)

_run_directory = click.argument("run_dir", type=click.Path(path_type=Path))


def _recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    overrides = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY.PATH=VALUE",
        help="Change one value of the recipe; repeatable.",
    )
    resume = click.option("--resume", is_flag=True, help="Resume from the newest checkpoint.")
    accept_changes = click.option(
        "--accept-changes",
        is_flag=True,
        help="Resume even if the recipe, images, number of threads or versions differ from the checkpoint's.",
    )
    skip_bad = click.option(
        "--skip-bad", is_flag=True, help="Leave out images that cannot be read, like data.skip_bad = true."
    )
    rehearsal = click.option(
        "--rehearsal/--no-rehearsal",
        default=True,
        help="Whether the untrained student first goes the whole way on a few images; a resumed run does not.",
    )
    return overrides(resume(accept_changes(skip_bad(rehearsal(command)))))


@click.command(cls=TrainingCommand)
@click.argument("recipe")
@click.option("--out", type=click.Path(path_type=Path), help="Run directory; default: runs/RECIPE-DATE-TIME.")
@click.option("--device", metavar="NAME", help="Take INT8 types, threads and budgets from this device.")
@_recipe_options
def run(
    recipe: str,
    out: Path | None,
    device: str | None,
    overrides: tuple[str, ...],
    resume: bool,
    accept_changes: bool,
    skip_bad: bool,
    rehearsal: bool,
) -> None:
    """Run every step for RECIPE, a built-in name or a TOML file."""
    if resume and out is None:
        raise UsageError("--resume needs --out, the run directory to resume in")
    loaded = _load_recipe(recipe, (*_device_overrides(device), *overrides, *_SKIP_BAD * skip_bad))
    from ecd_deploy.cli.text.progress import ShownProgress
    from ecd_deploy.cli.text.summary import print_summary
    from ecd_deploy.pipelines.run import is_main_process, run_train
    from ecd_deploy.pipelines.run import run as run_pipeline

    directory = out or Path("runs") / f"{loaded.name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    if not is_main_process():
        run_train(loaded, directory, resume=resume, accept_changes=accept_changes)
        return
    terminal = console()
    terminal.print(loaded.name, style="bold", end=" ")
    terminal.print(f"in {directory}")
    with ShownProgress(terminal) as shown:
        results = run_pipeline(
            loaded, directory, resume=resume, accept_changes=accept_changes, rehearsal=rehearsal, on_event=shown
        )
    print_summary(results, directory, terminal)
    finish(results.gate, directory)


@click.command(cls=TrainingCommand)
@_run_directory
@click.option("--recipe", help="A built-in name or a TOML file; not needed with --resume.")
@_recipe_options
def train(
    run_dir: Path,
    recipe: str | None,
    overrides: tuple[str, ...],
    resume: bool,
    accept_changes: bool,
    skip_bad: bool,
    rehearsal: bool,
) -> None:
    """Train into RUN_DIR, without the later steps."""
    loaded = _recipe_of(run_dir, recipe, overrides + _SKIP_BAD * skip_bad, resume=resume)
    from ecd_deploy.cli.text.progress import ShownProgress
    from ecd_deploy.pipelines.report.words import describe_training
    from ecd_deploy.pipelines.run import is_main_process, run_train

    with ShownProgress(console()) as shown:
        result = run_train(
            loaded, run_dir, resume=resume, accept_changes=accept_changes, rehearsal=rehearsal, on_event=shown
        )
    if is_main_process():
        click.echo(describe_training(result, loaded.train.select))


@click.command(cls=TrainingCommand)
@_run_directory
def split(run_dir: Path) -> None:
    """Split the student off and prove it separate."""
    from ecd_deploy.pipelines.run import run_split

    proof = run_split(run_dir)
    from ecd_deploy.pipelines.report.words import describe_proof

    for name, found in describe_proof(proof):
        click.echo(f"{name}: {found}")


@click.command(cls=TrainingCommand)
@_run_directory
def export(run_dir: Path) -> None:
    """Write the student in every format of the recipe."""
    from ecd_deploy.pipelines.run import run_export

    for artefact in run_export(run_dir).artefacts:
        click.echo(f"{artefact.file}  {artefact.bytes:,} bytes  sha256 {artefact.sha256}")


@click.command(cls=TrainingCommand)
@_run_directory
def validate(run_dir: Path) -> None:
    """Compare every artefact with the student, and measure accuracy.

    The reference is the student in PyTorch; accuracy is measured with onnxruntime on the test images, in batches of
    profile.batch_size, as latency is.
    """
    from ecd_deploy.pipelines.run import run_validate

    validation = run_validate(run_dir)
    for entry in validation.artefacts:
        problem = entry.parity.problem()
        click.echo(
            f"{entry.format}: " + (problem or f"largest difference {entry.parity.max_abs_diff:.2g}{entry.place}")
        )
        if entry.help is not None:
            click.echo(f"  {entry.help.words()}: {entry.help.reason}")
    click.echo(f"recommended on a host like this one: {validation.recommended}")
    paired = validation.onnx_top1
    top1 = f"PyTorch {paired.reference.accuracy:.2%}, ONNX {paired.candidate.accuracy:.2%}"
    click.echo(f"top-1: {top1} {validation.batches()}")
    if any(entry.parity.problem() for entry in validation.artefacts):
        raise GateFailed(f"an artefact's logits cannot be compared with the student's; see {run_dir}/validation.json")


@click.command()
@_run_directory
@click.option(
    "--against", type=click.Path(path_type=Path), multiple=True, help="Another run to show beside this one; repeatable."
)
def report(run_dir: Path, against: tuple[Path, ...]) -> None:
    """Write report.html and report.md from the results of the steps."""
    from ecd_deploy.pipelines.run import run_report

    click.echo(run_report(run_dir, against))


def _device_overrides(name: str | None) -> tuple[str, ...]:
    if name is None:
        return ()
    from ecd_deploy.pipelines.device.budgets import load_device

    return load_device(name).overrides()


def _load_recipe(recipe: str, overrides: tuple[str, ...]) -> Recipe:
    from ecd_deploy.recipe.recipe import load_recipe

    return load_recipe(recipe, overrides)


def _recipe_of(run_dir: Path, recipe: str | None, overrides: tuple[str, ...], *, resume: bool) -> Recipe:
    if recipe is not None:
        return _load_recipe(recipe, overrides)
    recorded = run_dir / "recipe.toml"
    if not resume or not recorded.is_file():
        raise RunDirectoryError(f"no recipe to train: ecd-deploy train {run_dir} --recipe RECIPE")
    return _load_recipe(str(recorded), overrides)
