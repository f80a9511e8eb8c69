"""What a Python program calls instead of a command; each function does what the command of its name does."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from ecd_deploy.errors import UsageError
from ecd_deploy.training.progress import ignore

if TYPE_CHECKING:
    from ecd_deploy.pipelines.gate.decide import GateReport
    from ecd_deploy.pipelines.record.artefacts import ArtefactList
    from ecd_deploy.pipelines.record.profile import Profile
    from ecd_deploy.pipelines.record.progress import OnEvent
    from ecd_deploy.pipelines.record.validation import Validation
    from ecd_deploy.pipelines.rehearse.result import Rehearsal
    from ecd_deploy.pipelines.report.results import RunResults
    from ecd_deploy.recipe.recipe import Recipe
    from ecd_deploy.split import SplitProof
    from ecd_deploy.training import TrainingResult

AnyPath = str | PathLike[str]

_OF_TRAINING = {
    "torch": "torch",
    "torchvision": "torchvision",
    "accelerate": "accelerate",
    "onnxscript": "onnxscript",
    "sklearn": "scikit-learn",
    "tensorboard": "tensorboard",
}


def run(
    recipe: Recipe | AnyPath,
    out: AnyPath,
    *,
    resume: bool = False,
    accept_changes: bool = False,
    rehearsal: bool = True,
    on_event: OnEvent = ignore,
) -> RunResults:
    """Train, split, export, validate, profile, gate and report, as `ecd-deploy run` does.

    Under `accelerate launch` only the first process calls this; the others call `train`.

    Args:
        recipe: made in Python, or a built-in name, or the path of a TOML file.
        out: the run directory; a new one unless `resume`.
        resume: continue from the newest checkpoint in it.
        accept_changes: resume even if the recipe, images, number of threads or versions differ.
        rehearsal: first take the untrained student the whole way on a few images.
        on_event: is told of the progress; nothing is printed.

    Returns:
        The results of all steps. A limit that is violated or undecided raises nothing: see `gate.verdict`.

    Raises:
        UsageError: the recipe, the student or the directory cannot be used, or an extra is not installed.
        ArtefactError: images cannot be used, or a step failed; what was written before it stays.
        Interrupted: a signal came while it trained; everything is saved.
    """
    require_training()
    from ecd_deploy.pipelines.run import is_main_process
    from ecd_deploy.pipelines.run import run as run_all

    if not is_main_process():
        raise UsageError("run: the first process of a launch calls this, and the others ecd_deploy.train")
    return run_all(
        _recipe(recipe),
        Path(out),
        resume=resume,
        accept_changes=accept_changes,
        rehearsal=rehearsal,
        on_event=on_event,
    )


def train(
    recipe: Recipe | AnyPath,
    out: AnyPath,
    *,
    resume: bool = False,
    accept_changes: bool = False,
    rehearsal: bool = True,
    on_event: OnEvent = ignore,
) -> TrainingResult:
    """Train into a run directory, without the later steps; arguments and errors are those of `run`.

    Under `accelerate launch` every process calls this; only the first one writes, and is told of the progress.
    """
    require_training()
    from ecd_deploy.pipelines.run import run_train

    return run_train(
        _recipe(recipe),
        Path(out),
        resume=resume,
        accept_changes=accept_changes,
        rehearsal=rehearsal,
        on_event=on_event,
    )


def rehearse(recipe: Recipe | AnyPath) -> Rehearsal:
    """Take the untrained student of a recipe the whole way on a few of its images; nothing is written.

    Raises:
        UsageError: what would fail later.
        DataError: images that cannot be used.
    """
    require_training()
    from ecd_deploy.pipelines.run import run_rehearsal

    return run_rehearsal(_recipe(recipe))


def split_run(run_dir: AnyPath) -> SplitProof:
    """Split the student off a trained run and prove it separate; `ecd_deploy.split` is the package of the proofs.

    Raises:
        RunDirectoryError: the run is not trained.
        SplitError: the student is not separate; nothing is written.
        ArtefactError: a file of the run was changed, or its images.
    """
    require_training()
    from ecd_deploy.pipelines.run import run_split

    return run_split(Path(run_dir))


def export(run_dir: AnyPath) -> ArtefactList:
    """Write the split student in every format of the recipe.

    Raises:
        RunDirectoryError: nothing was split yet.
        ExportError: a format cannot express the student, or its file holds anything else.
        ArtefactError: a file of the run was changed, or its images.
    """
    require_training()
    from ecd_deploy.pipelines.run import run_export

    return run_export(Path(run_dir))


def validate(run_dir: AnyPath) -> Validation:
    """Compare every artefact with the student in PyTorch, and measure accuracy on the test images.

    Raises:
        RunDirectoryError: nothing was exported yet.
        ArtefactError: a file of the run was changed, or its images, or an artefact does not run.
    """
    require_training()
    from ecd_deploy.pipelines.run import run_validate

    return run_validate(Path(run_dir))


def report(run_dir: AnyPath, against: Sequence[AnyPath] = ()) -> Path:
    """Write the report of a finished run, with other finished runs beside it; the path of `report.html`.

    Raises:
        UsageError: a step is missing, or a run is named twice.
        ArtefactError: a file of a run was changed, or its images.
    """
    from ecd_deploy.pipelines.run import run_report

    return run_report(Path(run_dir), [Path(other) for other in against])


def gate(
    target: AnyPath,
    *,
    data: AnyPath | None = None,
    baseline: AnyPath | None = None,
    config: AnyPath | None = None,
    out: AnyPath | None = None,
) -> GateReport:
    """Decide about a validated and profiled run, or about any model on labelled images, as `ecd-deploy gate` does.

    Args:
        target: a run directory, where `gate.json` and `junit.xml` are written; with `data` an ONNX or .ort file too.
        data: a folder that holds `CLASS/*.jpg`, or a CSV file: the model is evaluated on these and profiled first.
        baseline: another one to compare with, which is only read.
        config: a TOML file whose limits take the place of the recipe's; with `data` it also says what a model expects.
        out: with `data`, the folder for the results.

    Returns:
        The report. A limit that is violated or undecided raises nothing: see its `verdict`.

    Raises:
        UsageError: a step is missing, or the baseline or the limits cannot be used.
        ArtefactError: a file was changed after it was written.
    """
    from ecd_deploy.pipelines.run import run_gate, run_model_gate

    other, limits = (None if path is None else Path(path) for path in (baseline, config))
    if data is None:
        return run_gate(Path(target), baseline=other, limits_file=limits)
    if out is None:
        raise UsageError("gate: `data` needs `out`, the folder for the results")
    return run_model_gate(Path(target), Path(data), config=limits, baseline=other, out=Path(out))


def profile(
    target: AnyPath,
    *,
    artefact: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    cpus: Sequence[int] | None = None,
    memory_mb: int | None = None,
    provider: str | None = None,
) -> Profile:
    """Measure latency, memory and throughput on this host, as `ecd-deploy profile` does.

    Args:
        target: a run directory, in which the profile is kept, or an ONNX or .ort file.
        artefact: format of one of the run's; by default what ships.
        device: whose number of threads is taken.
        threads: of onnxruntime; by default the recipe's, or 1.
        cpus: numbers of the CPUs that the measurement is pinned to.
        memory_mb: limit of its data memory.
        provider: onnxruntime's, `NAME` or `NAME:key=value,...`; by default the recipe's, or the CPU.

    Returns:
        What was measured, of the first artefact where several ship. A measurement on a busy host raises nothing: see
        `latency.reasons`.

    Raises:
        UsageError: the target or a condition cannot be used.
        ArtefactError: the model cannot be read or run.
    """
    from ecd_deploy.pipelines.device.command import Conditions, profile_target

    given = None if cpus is None else ",".join(map(str, cpus))
    conditions = Conditions.read(device=device, threads=threads, cpus=given, memory_mb=memory_mb, provider=provider)
    return profile_target(Path(target), conditions, choice=artefact)[0]


def require_training() -> None:
    """Look for the packages of the extra [train]; none is imported.

    Raises:
        UsageError: one is not installed.
    """
    for module, package in _OF_TRAINING.items():
        if find_spec(module) is None:
            raise UsageError(f"{package} is not installed: pip install 'ecd-deploy[train]'")


def _recipe(recipe: Recipe | AnyPath) -> Recipe:
    from ecd_deploy.recipe.recipe import Recipe, load_recipe

    return recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
