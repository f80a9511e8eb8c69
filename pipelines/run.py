"""The whole pipeline: from a recipe to a verdict."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ecd_deploy.config import Recipe
from ecd_deploy.data import load_data
from ecd_deploy.pipelines.bom import write_bom
from ecd_deploy.pipelines.card import write_model_card
from ecd_deploy.pipelines.environment import ENVIRONMENT_NAME, describe_environment
from ecd_deploy.pipelines.export import export
from ecd_deploy.pipelines.gate import gate
from ecd_deploy.pipelines.launch import is_main_process, train_as_worker
from ecd_deploy.pipelines.profile import profile
from ecd_deploy.pipelines.report import RunResults, read_results, write_report
from ecd_deploy.pipelines.run_directory import create_run
from ecd_deploy.pipelines.split import split
from ecd_deploy.pipelines.train import train
from ecd_deploy.pipelines.validate import validate


def run(
    recipe: Recipe, root: Path, *, resume: bool, console: Console, accept_changes: bool = False
) -> RunResults | None:
    """Train, split, export, validate, profile, gate and report.

    Under `accelerate launch` every process trains, and only the first one goes on after that: the
    others return None.

    Raises:
        EcdDeployError: any step's error; what was written before it stays.
    """
    data = load_data(recipe.data, seed=recipe.seed)
    if not is_main_process():
        train_as_worker(recipe, root, data, resume=resume, accept_changes=accept_changes)
        return None
    with create_run(root, recipe, resume=resume, accept_changes=accept_changes) as directory:
        directory.write_json(ENVIRONMENT_NAME, describe_environment())
        train(directory, data, resume=resume, console=console, accept_changes=accept_changes)
        student = split(directory, data)
        export(directory, student, data)
        validate(directory, student, data)
        profile(directory)
        gate(directory)
        write_report(directory, data.test)
        write_model_card(directory)
        write_bom(directory)
        return read_results(directory)
