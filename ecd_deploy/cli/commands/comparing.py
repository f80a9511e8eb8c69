"""The command that compares ways of training."""

from __future__ import annotations

from pathlib import Path

import click

from ecd_deploy.cli.ending import console
from ecd_deploy.cli.training import TrainingCommand
from ecd_deploy.errors import UsageError


@click.command(cls=TrainingCommand)
@click.argument("study")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the study; default: studies/NAME.")
@click.option("--resume", is_flag=True, help="Keep finished runs and resume the others.")
@click.option("--jobs", type=click.IntRange(min=1), help="Runs at a time; default: 1, or all with --slurm.")
@click.option("--stack", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
              help="Train up to N runs of like networks, such as the seeds of an arm, in the same steps.")  # fmt: skip
@click.option("--slurm", is_flag=True, help="Submit the runs to a Slurm cluster (extra [slurm]).")
@click.option("--slurm-set", multiple=True, metavar="KEY=VALUE",
              help="What a job requests, such as partition=gpu or gpus_per_node=1; repeatable.")  # fmt: skip
def compare(
    study: str, out: Path | None, resume: bool, jobs: int | None, stack: int, slurm: bool, slurm_set: tuple[str, ...]
) -> None:
    """Train every arm of STUDY with every seed, and write the table.

    STUDY is a built-in name or a TOML file.
    """
    from ecd_deploy.pipelines.study.runner import compare as run_study
    from ecd_deploy.pipelines.study.slurm import parse_settings
    from ecd_deploy.pipelines.study.study import load_study

    if slurm_set and not slurm:
        raise UsageError("--slurm-set is what a Slurm job requests: add --slurm")
    loaded = load_study(study)
    directory = out or Path("studies") / loaded.name
    result = run_study(
        loaded,
        directory,
        resume=resume,
        jobs=jobs,
        stack=stack,
        place="slurm" if slurm else "processes",
        settings=parse_settings(slurm_set),
        console=console(),
    )
    click.echo(result.text)
    click.echo(f"{result.markdown}, {result.csv}, {result.plot}")
