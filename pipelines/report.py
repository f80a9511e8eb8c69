"""Step 7: `report.md`, one page made from the files that the other steps left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ecd_deploy.pipelines.environment import ENVIRONMENT_NAME, Environment
from ecd_deploy.pipelines.export import ARTEFACTS_NAME, ArtefactList
from ecd_deploy.pipelines.gate import GATE_NAME, GateReport
from ecd_deploy.pipelines.profile import PROFILE_NAME, Profile
from ecd_deploy.pipelines.run_directory import RECIPE_NAME, RunDirectory
from ecd_deploy.pipelines.split import SPLIT_NAME
from ecd_deploy.pipelines.split_text import describe_proof
from ecd_deploy.pipelines.train import TRAINING_NAME
from ecd_deploy.pipelines.validate import VALIDATION_NAME, Validation
from ecd_deploy.split import SplitProof
from ecd_deploy.training import TrainingResult

REPORT_NAME = "report.md"


@dataclass(frozen=True)
class RunResults:
    """Everything that a finished run says of itself."""

    training: TrainingResult
    proof: SplitProof
    artefacts: ArtefactList
    validation: Validation
    profile: Profile
    gate: GateReport
    environment: Environment


def read_results(directory: RunDirectory) -> RunResults:
    """Read the results of all steps, each checked against the manifest.

    Raises:
        RunDirectoryError: naming the step that has not been run.
        ArtefactError: a file was changed.
    """
    return RunResults(
        training=directory.read_json(TRAINING_NAME, TrainingResult, made_by="train"),
        proof=directory.read_json(SPLIT_NAME, SplitProof, made_by="split"),
        artefacts=directory.read_json(ARTEFACTS_NAME, ArtefactList, made_by="export"),
        validation=directory.read_json(VALIDATION_NAME, Validation, made_by="validate"),
        profile=directory.read_json(PROFILE_NAME, Profile, made_by="profile"),
        gate=directory.read_json(GATE_NAME, GateReport, made_by="gate"),
        environment=directory.read_json(ENVIRONMENT_NAME, Environment, made_by="train"),
    )


def write_report(directory: RunDirectory) -> Path:
    """Write `report.md`.

    Raises:
        RunDirectoryError: naming the step that has not been run.
        ArtefactError: a file was changed.
    """
    results = read_results(directory)
    sections = [
        _title(directory, results),
        _gate_section(results.gate),
        _accuracy_section(directory, results),
        _artefact_section(results),
        _latency_section(results.profile),
        _split_section(results.proof),
        _environment_section(directory, results.environment),
    ]
    directory.write(REPORT_NAME, ("\n\n".join(sections) + "\n").encode())
    return directory.root / REPORT_NAME


def format_number(value: float | None, unit: str = "") -> str:
    """Four significant digits with the unit; a dash where there is no value."""
    if value is None:
        return "-"
    return f"{value:.4g} {unit}".rstrip()


def _title(directory: RunDirectory, results: RunResults) -> str:
    recipe = directory.recipe
    return (
        f"# {recipe.name}: {results.gate.verdict.value}\n\n"
        f"{recipe.student.name}, trained with `{recipe.method.name}` for {results.training.epochs} epochs. "
        f"{recipe.description}".rstrip()
    )


def _gate_section(gate: GateReport) -> str:
    rows = [
        (
            check.name,
            format_number(check.value, check.unit),
            format_number(check.bound, check.unit),
            format_number(check.limit, check.unit),
            check.verdict.value,
            check.reason,
        )
        for check in gate.checks
    ]
    text = "## Gate\n\n" + _table(("check", "value", "bound", "limit", "verdict", "because"), rows)
    text += f"\n\nBounds are one-sided, at {gate.confidence:.0%} confidence (p90: 99%)."
    if gate.not_limited:
        text += f" Not limited by the recipe: {', '.join(gate.not_limited)}."
    return text


def _accuracy_section(directory: RunDirectory, results: RunResults) -> str:
    training, paired = results.training, results.validation.onnx_top1
    rows = [
        ("last epoch", "validation", f"{training.last.epoch}", f"{training.last.validation_top1:.2%}"),
        ("best epoch", "validation", f"{training.best.epoch}", f"{training.best.validation_top1:.2%}"),
        ("PyTorch student", f"test, {paired.reference.images} images", "", f"{paired.reference.accuracy:.2%}"),
        ("ONNX student", f"test, {paired.candidate.images} images", "", f"{paired.candidate.accuracy:.2%}"),
    ]
    return (
        "## Accuracy\n\n"
        + _table(("weights", "images", "epoch", "top-1"), rows)
        + f"\n\nDeployed are the weights of the {directory.recipe.train.select} epoch; "
        "best means best on the validation split, and the test set took no part in any choice."
    )


def _artefact_section(results: RunResults) -> str:
    parity = {entry.format: entry.parity for entry in results.validation.artefacts}
    rows = []
    for artefact in results.artefacts.artefacts:
        compared = parity[artefact.format]
        agreement = "-" if compared.argmax_agreement is None else f"{compared.argmax_agreement:.2%}"
        rows.append(
            (
                f"`{artefact.file}`",
                f"{artefact.bytes / 1e3:.1f} kB",
                compared.problem() or format_number(compared.max_abs_diff),
                agreement,
                f"{compared.images}",
                f"`{artefact.sha256[:16]}…`",
            )
        )
    header = ("file", "size", "largest difference", "same class", "images", "SHA-256")
    return "## Artefacts\n\n" + _table(header, rows)


def _latency_section(profile: Profile) -> str:
    latency = profile.latency
    rows = [
        (
            f"p{entry.fraction * 100:.0f}",
            "too few samples" if entry.value_ms is None else format_number(entry.value_ms, "ms"),
            format_number(entry.upper_bound_ms, "ms"),
        )
        for entry in latency.percentiles
    ]
    text = (
        "## Latency\n\n"
        f"`{profile.file}`, onnxruntime on the CPU of the {profile.place}, {latency.threads} thread(s), "
        f"batch {latency.batch_size}, "
        f"{len(latency.samples_ms)} samples, none removed. Load {latency.load_ms:.1f} ms, "
        f"first run {latency.first_run_ms:.2f} ms, CPU time over wall time {latency.cpu_over_wall:.2f}.\n\n"
        + _table(("percentile", "latency", "upper bound"), rows)
    )
    if latency.contended:
        text += f"\n\nThese figures are not valid: {'; '.join(latency.reasons) or 'the host was busy'}."
    return text


def _split_section(proof: SplitProof) -> str:
    return "## Split proof\n\n" + _table(("check", "found"), describe_proof(proof))


def _environment_section(directory: RunDirectory, environment: Environment) -> str:
    versions = ", ".join(f"{name} {found}" for name, found in environment.packages.items() if found)
    return (
        "## Environment\n\n"
        f"{environment.processor}, {environment.cores} cores, {environment.memory_gib} GiB, "
        f"{environment.platform}, Python {environment.python}; {versions}.\n\n"
        f"Recipe digest `{directory.recipe.digest()}`, data digest `{directory.manifest.data_digest}`.\n\n"
        f"To reproduce: `ecd-deploy run {RECIPE_NAME}` with the recipe in this folder."
    )


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
