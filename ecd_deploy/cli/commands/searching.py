"""The command that finds the smallest student that passes the gate."""

from __future__ import annotations

from pathlib import Path

import click

from ecd_deploy.cli.ending import console
from ecd_deploy.cli.training import TrainingCommand
from ecd_deploy.errors import GateFailed, Inconclusive

_LADDER = ("resnet8", "resnet20", "resnet32", "resnet44", "resnet56", "wrn-16-2", "wrn-22-2")


@click.command(cls=TrainingCommand)
@click.argument("recipe")
@click.option(
    "--student", "students", multiple=True, metavar="NAME", help=f"Repeatable; default: {', '.join(_LADDER)}."
)
@click.option("--device", metavar="NAME", help="Take INT8 types, threads and budgets from this device.")
@click.option("--host", metavar="USER@HOST", help="Measure latency on this host, over ssh, before anything is trained.")
@click.option("--python", default="python3", show_default=True, help="The host's Python with onnxruntime and numpy.")
@click.option(
    "--gate", "limits", type=click.Path(path_type=Path), metavar="TOML", help="Limits that replace the recipe's."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the search; default: searches/RECIPE.")
@click.option("--resume", is_flag=True, help="Resume the search in that folder.")
@click.option("--every", is_flag=True, help="Also train students larger than the smallest that passes.")
@click.option(
    "--early-stop/--no-early-stop", default=True, show_default=True, help="Give up training runs that fall short."
)
@click.option("--stop-share", type=click.FloatRange(0, 1, min_open=True), default=0.5, show_default=True,
              help="Share of the epochs after which a training run may be given up.")  # fmt: skip
@click.option("--stop-margin", type=click.FloatRange(0, 1), default=0.15, show_default=True,
              help="How far below min_top1 the best validation top-1 may be by then.")  # fmt: skip
@click.option("--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE", help="Change one value of the recipe.")
def search(
    recipe: str,
    students: tuple[str, ...],
    device: str | None,
    host: str | None,
    python: str,
    limits: Path | None,
    out: Path | None,
    resume: bool,
    every: bool,
    early_stop: bool,
    stop_share: float,
    stop_margin: float,
    overrides: tuple[str, ...],
) -> None:
    """Find the smallest student that passes RECIPE's gate.

    Students are trained in order of size, the smallest first, until one passes. Size and latency do not depend on
    the weights and are measured first: a student that exceeds a limit is not trained.
    Exit codes: 0 found, 1 none passes, 3 none passes but one may.
    """
    from ecd_deploy.pipelines.device.budgets import load_device
    from ecd_deploy.pipelines.gate.limits import read_limits
    from ecd_deploy.pipelines.search.candidate import RUN_FOLDER, EarlyStop, folder_of
    from ecd_deploy.pipelines.search.search import search as run_search
    from ecd_deploy.recipe.recipe import load_recipe

    loaded = load_recipe(recipe, (*(load_device(device).overrides() if device else ()), *overrides))
    if limits is not None:
        loaded = loaded.model_copy(update={"gate": read_limits(limits).config})
    directory = out or Path("searches") / loaded.name
    report = run_search(
        loaded,
        students or _LADDER,
        directory,
        rule=EarlyStop(share=stop_share, margin=stop_margin) if early_stop else None,
        resume=resume,
        every=every,
        host=host,
        python=python,
        console=console(),
    )
    click.echo((directory / "search.md").read_text(encoding="utf-8"))
    if report.found is not None:
        click.echo(f"smallest that passes: {report.found}, {folder_of(directory, report.found) / RUN_FOLDER}")
    elif report.verdict == "inconclusive":
        raise Inconclusive(f"no student is certain to pass; see {directory / 'search.md'}")
    else:
        raise GateFailed(f"no student of the ladder passes; see {directory / 'search.md'}")
