"""The gate: each limit of the recipe against what was measured, and one verdict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ecd_deploy.errors import ArtefactError
from ecd_deploy.pipelines.gate.accuracy import Scores, accuracy_checks, drop_checks
from ecd_deploy.pipelines.gate.baseline import BaselineComparison, compare_with_baseline, ratio_checks
from ecd_deploy.pipelines.gate.check import Check, Verdict, overall, size_checks
from ecd_deploy.pipelines.gate.ci import append_step_summary, junit, summary_markdown
from ecd_deploy.pipelines.gate.latency import latency_checks
from ecd_deploy.pipelines.gate.limits import NO_ACCURACY_LIMIT, LimitsSource, limits_of, read_limits
from ecd_deploy.pipelines.gate.separation import audit_check, parity_checks, split_check
from ecd_deploy.pipelines.record.artefacts import ArtefactList, AuditReport, read_artefacts
from ecd_deploy.pipelines.record.names import (
    AUDIT_NAME,
    GATE_NAME,
    JUNIT_NAME,
    PROFILE_NAME,
    SPLIT_NAME,
    VALIDATION_NAME,
)
from ecd_deploy.pipelines.record.predictions import StoredPredictions, read_predictions
from ecd_deploy.pipelines.record.profile import Profile
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.pipelines.record.validation import Validation
from ecd_deploy.records import Record
from ecd_deploy.split import SplitProof

__all__ = ["Check", "Evidence", "GateReport", "Verdict", "gate", "read_evidence"]


class GateReport(Record):
    """Written to `gate.json`."""

    schema_version: int = 4
    verdict: Verdict
    confidence: float
    checks: tuple[Check, ...]
    limits: LimitsSource
    not_limited: tuple[str, ...]
    """Limits that are not set."""
    limits_accuracy: bool
    """Whether any limit is on accuracy; without one, a pass says nothing about it."""
    profile_sha256: str | None = None
    """Of the `profile.json` that holds the raw latencies."""
    baseline: BaselineComparison | None = None

    @property
    def warning(self) -> str | None:
        """What a reader of the verdict could take it for, though it is not; None if nothing."""
        return None if self.limits_accuracy else NO_ACCURACY_LIMIT


@dataclass(frozen=True)
class Evidence:
    """What a gate decides by: the results of the steps before it."""

    proof: SplitProof
    artefacts: ArtefactList
    audit: AuditReport
    validation: Validation
    profile: Profile
    predictions: StoredPredictions


def read_evidence(directory: RunDirectory) -> Evidence:
    """Read the results of the steps before the gate.

    Raises:
        RunDirectoryError: naming the step that has not been run.
        ArtefactError: a file was changed.
    """
    return Evidence(
        validation=directory.read_json(VALIDATION_NAME, Validation),
        profile=directory.read_json(PROFILE_NAME, Profile),
        artefacts=read_artefacts(directory),
        audit=directory.read_json(AUDIT_NAME, AuditReport),
        proof=directory.read_json(SPLIT_NAME, SplitProof),
        predictions=read_predictions(directory),
    )


def gate(
    directory: RunDirectory, evidence: Evidence, *, baseline: Path | None = None, limits_file: Path | None = None
) -> GateReport:
    """Decide about a run from its validation, profile and artefacts; write `gate.json` and `junit.xml`.

    Args:
        directory: of the run.
        evidence: the results of the run.
        baseline: a run directory to compare with, which is only read.
        limits_file: TOML that takes the place of the recipe's `[gate]`; see `read_limits`.

    Raises:
        RunDirectoryError: the baseline cannot be compared with.
        RecipeError: the limits file cannot be used, or a limit is for a class or a slice that there is none of.
        ArtefactError: a file was changed after it was written or measured.
    """
    limits = limits_of(directory) if limits_file is None else read_limits(limits_file)
    config = limits.config
    device = directory.recipe.profile.device
    validation, profile, artefacts = evidence.validation, evidence.profile, evidence.artefacts
    for artefact in artefacts.artefacts:
        directory.read(artefact.file)
    _check_measured_bytes(artefacts, validation, profile)
    compared = None if baseline is None else compare_with_baseline(directory, baseline, config.confidence)
    found = None if compared is None else compared.found
    checks = [
        split_check(evidence.proof),
        audit_check(artefacts, evidence.audit),
        *parity_checks(config, validation),
        *accuracy_checks(config, Scores(evidence.predictions, None if compared is None else compared.images)),
        *drop_checks(config, validation),
        *latency_checks(config, profile, device),
        *size_checks(artefacts.find("onnx").bytes, config.max_size_mb),
        *ratio_checks(config, found, device),
    ]
    usual = ("min_top1", "max_drop", "max_abs_diff", "p90_ms_max", "max_size_mb")
    report = GateReport(
        verdict=overall(checks),
        confidence=config.confidence,
        checks=tuple(checks),
        limits=limits.source,
        not_limited=tuple(name for name in usual if getattr(config, name) is None),
        limits_accuracy=compared is not None or config.limits_accuracy(),
        profile_sha256=directory.manifest.entry(PROFILE_NAME).sha256,
        baseline=found,
    )
    directory.write_json(GATE_NAME, report)
    directory.write(JUNIT_NAME, junit(report.checks))
    said = report.limits.words()
    append_step_summary(summary_markdown(report.verdict, report.checks, found, limits=said, warning=report.warning))
    return report


def _check_measured_bytes(artefacts: ArtefactList, validation: Validation, profile: Profile) -> None:
    exported = {artefact.file: artefact.sha256 for artefact in artefacts.artefacts}
    measured = {entry.file: entry.sha256 for entry in validation.artefacts}
    if exported != measured:
        raise ArtefactError("the artefacts were exported again after `validate`: run `validate` again")
    if exported.get(profile.file) != profile.sha256:
        raise ArtefactError(f"{profile.file} was exported again after `profile`: run `profile` again")
