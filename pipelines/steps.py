"""One step of an existing run directory, as the command line calls it: inputs are read from the folder.

Each function imports its own step: a wrong folder is told before torch is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ecd_deploy.errors import EcdDeployError, UsageError
from ecd_deploy.pipelines.run_directory import RunDirectory, create_run, look_at_run, open_run

if TYPE_CHECKING:
    from rich.console import Console

    from ecd_deploy.config import Recipe
    from ecd_deploy.data import DataSplits
    from ecd_deploy.gate_config import ProfileConfig
    from ecd_deploy.pipelines.artefacts import ArtefactList
    from ecd_deploy.pipelines.bundle import Bundle
    from ecd_deploy.pipelines.gate import GateReport
    from ecd_deploy.pipelines.profile import Profile
    from ecd_deploy.pipelines.validation import Validation
    from ecd_deploy.split import SplitProof
    from ecd_deploy.training import TrainingResult


def run_train(
    recipe: Recipe, root: Path, *, resume: bool, console: Console, accept_changes: bool = False
) -> TrainingResult | None:
    """Train into a new run directory, or go on in one; None in all processes but the first."""
    from ecd_deploy.data import load_data
    from ecd_deploy.pipelines.environment import ENVIRONMENT_NAME, describe_environment
    from ecd_deploy.pipelines.launch import is_main_process, train_as_worker
    from ecd_deploy.pipelines.train import train

    data = load_data(recipe.data, seed=recipe.seed)
    if not is_main_process():
        train_as_worker(recipe, root, data, resume=resume, accept_changes=accept_changes)
        return None
    with create_run(root, recipe, resume=resume, accept_changes=accept_changes) as directory:
        directory.write_json(ENVIRONMENT_NAME, describe_environment())
        return train(directory, data, resume=resume, console=console, accept_changes=accept_changes)


def run_split(root: Path) -> SplitProof:
    """Split the student off a trained run."""
    with open_run(root) as directory:
        from ecd_deploy.pipelines.split import split

        return split(directory, _data(directory)).proof


def run_export(root: Path) -> ArtefactList:
    """Export the student that `split` left."""
    with open_run(root) as directory:
        from ecd_deploy.pipelines.export import export
        from ecd_deploy.pipelines.split import open_student

        data = _data(directory)
        return export(directory, open_student(directory, data), data)


def run_validate(root: Path) -> Validation:
    """Validate the artefacts that `export` left."""
    with open_run(root) as directory:
        from ecd_deploy.pipelines.split import open_student
        from ecd_deploy.pipelines.validate import validate

        data = _data(directory)
        return validate(directory, open_student(directory, data), data)


def run_profile(root: Path, config: ProfileConfig | None = None) -> Profile:
    """Measure the latency of the exported ONNX student."""
    with open_run(root) as directory:
        from ecd_deploy.pipelines.profile import profile

        return profile(directory, config)


def run_gate(root: Path, *, baseline: Path | None = None, limits_file: Path | None = None) -> GateReport:
    """Decide over a validated and profiled run; where that cannot be done, `junit.xml` says why."""
    with open_run(root) as directory:
        from ecd_deploy.pipelines.gate import gate
        from ecd_deploy.pipelines.gate_files import JUNIT_NAME, junit_error

        try:
            return gate(directory, baseline=baseline, limits_file=limits_file)
        except EcdDeployError as error:
            directory.write(JUNIT_NAME, junit_error(error))
            raise


def run_report(root: Path, against: Sequence[Path] = ()) -> Path:
    """Write the report of a finished run, with other finished runs beside it, which are only read."""
    with open_run(root) as directory:
        from ecd_deploy.pipelines.bom import write_bom
        from ecd_deploy.pipelines.card import write_model_card
        from ecd_deploy.pipelines.report import NamedRun, read_results, write_report

        names = _names(root, against)
        others = [NamedRun(name, read_results(look_at_run(other))) for name, other in zip(names, against, strict=True)]
        write_model_card(directory)
        write_bom(directory)
        return write_report(directory, _data(directory).test, others)


def run_bundle(root: Path, *, format_name: str, output: Path | None = None) -> Bundle:
    """Pack an artefact of a validated run for a device without a network."""
    with open_run(root) as directory:
        from ecd_deploy.pipelines.bundle import bundle, bundle_path, find_artefact
        from ecd_deploy.pipelines.split import open_student

        path = bundle_path(directory, format_name, output)
        find_artefact(directory, format_name)
        data = _data(directory)
        return bundle(directory, open_student(directory, data), data, format_name, path)


def _names(root: Path, against: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of the folders above as tell them apart."""
    folders = [path.resolve() for path in against]
    if root.resolve() in folders or len(set(folders)) != len(folders):
        raise UsageError("--against: a run is named twice, or is the one that is reported")
    for parts in range(1, max((len(folder.parts) for folder in folders), default=1)):
        names = ["/".join(folder.parts[-parts:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _data(directory: RunDirectory) -> DataSplits:
    from ecd_deploy.data import load_data

    data = load_data(directory.recipe.data, seed=directory.recipe.seed)
    directory.bind_data(data.digest)
    return data
