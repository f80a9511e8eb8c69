"""The gate: each limit of the recipe against what was measured, and one verdict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ecd_deploy.errors import ArtefactError
from ecd_deploy.measure.statistics import accuracy_lower_bound, drop_upper_bound
from ecd_deploy.pipelines.gate.baseline import BaselineComparison, baseline_checks, compare_with_baseline
from ecd_deploy.pipelines.gate.check import Check, Verdict, bounded, overall, size_checks, undecided
from ecd_deploy.pipelines.gate.ci import append_step_summary, junit, summary_markdown
from ecd_deploy.pipelines.gate.latency import latency_checks
from ecd_deploy.pipelines.gate.limits import NO_ACCURACY_LIMIT, LimitsSource, limits_accuracy, limits_of, read_limits
from ecd_deploy.pipelines.record.artefacts import ArtefactList, AuditReport, read_artefacts
from ecd_deploy.pipelines.record.names import (
    AUDIT_NAME,
    GATE_NAME,
    JUNIT_NAME,
    PROFILE_NAME,
    SPLIT_NAME,
    VALIDATION_NAME,
)
from ecd_deploy.pipelines.record.profile import Profile
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.pipelines.record.validation import ArtefactValidation, Validation
from ecd_deploy.recipe.gate import GateConfig
from ecd_deploy.records import Record
from ecd_deploy.split import SplitProof

__all__ = ["Check", "Evidence", "GateReport", "Verdict", "gate", "read_evidence"]


class GateReport(Record):
    """Written to `gate.json`."""

    schema_version: Literal[3] = 3
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
        RecipeError: the limits file cannot be used.
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
    checks = [
        _split_check(evidence.proof),
        _audit_check(artefacts, evidence.audit),
        *_parity_checks(config, validation),
        *_accuracy_checks(config, validation),
        *latency_checks(config, profile, device),
        *size_checks(artefacts.find("onnx").bytes, config.max_size_mb),
        *baseline_checks(config, compared, device),
    ]
    usual = ("min_top1", "max_drop", "max_abs_diff", "p90_ms_max", "max_size_mb")
    report = GateReport(
        verdict=overall(checks),
        confidence=config.confidence,
        checks=tuple(checks),
        limits=limits.source,
        not_limited=tuple(name for name in usual if getattr(config, name) is None),
        limits_accuracy=limits_accuracy(config, has_baseline=compared is not None),
        profile_sha256=directory.manifest.entry(PROFILE_NAME).sha256,
        baseline=compared,
    )
    directory.write_json(GATE_NAME, report)
    directory.write(JUNIT_NAME, junit(report.checks))
    said = report.limits.words()
    append_step_summary(summary_markdown(report.verdict, report.checks, compared, limits=said, warning=report.warning))
    return report


def _check_measured_bytes(artefacts: ArtefactList, validation: Validation, profile: Profile) -> None:
    exported = {artefact.file: artefact.sha256 for artefact in artefacts.artefacts}
    measured = {entry.file: entry.sha256 for entry in validation.artefacts}
    if exported != measured:
        raise ArtefactError("the artefacts were exported again after `validate`: run `validate` again")
    if exported.get(profile.file) != profile.sha256:
        raise ArtefactError(f"{profile.file} was exported again after `profile`: run `profile` again")


def _split_check(proof: SplitProof) -> Check:
    checks = proof.checks
    verdict, reason = Verdict.PASS, f"separate from the teacher, {proof.method}"
    if not proof.passed:
        verdict, reason = Verdict.FAIL, f"the student is not separate: {', '.join(checks.failed)}"
    elif checks.not_done:
        undone = "; ".join(f"{name} was not checked: {why}" for name, why in checks.not_done.items())
        verdict, reason = Verdict.INCONCLUSIVE, f"{proof.method}; {undone}"
    return Check(
        name="split proof",
        value=float(checks.total - len(checks.not_done) - len(checks.failed)),
        bound=None,
        limit=float(checks.total),
        unit="",
        verdict=verdict,
        reason=reason,
    )


def _audit_check(artefacts: ArtefactList, audit: AuditReport) -> Check:
    if {entry.sha256 for entry in audit.audits} != {artefact.sha256 for artefact in artefacts.artefacts}:
        raise ArtefactError("the artefacts are not those that were audited: run `export` again")
    failed = [entry.format for entry in audit.audits if not entry.passed]
    unread = [entry.not_done_reason for entry in audit.audits if entry.not_done_reason is not None]
    passed = len(audit.audits) - len(failed) - len(unread)
    verdict, reason = Verdict.PASS, f"{sum(len(entry.tensors) for entry in audit.audits)} tensors traced to the student"
    if failed:
        verdict, reason = Verdict.FAIL, f"{', '.join(failed)} contain something other than the student"
    elif unread:
        verdict, reason = Verdict.INCONCLUSIVE, "; ".join(unread)
    return Check(
        name="artefact audit",
        value=float(passed),
        bound=None,
        limit=float(len(audit.audits)),
        unit="",
        verdict=verdict,
        reason=reason,
    )


def _parity_checks(config: GateConfig, validation: Validation) -> list[Check]:
    checks = []
    for entry in validation.artefacts:
        problem = entry.parity_problem(config.max_abs_diff)
        limits = [("max_abs_diff", entry.parity.max_abs_diff, config.max_abs_diff)]
        if entry.budget is not None:
            limits = [("relative difference", entry.parity.relative_diff, entry.budget.relative)]
            limits.append(("same class", entry.parity.argmax_agreement, entry.budget.agreement))
        for name, value, limit in limits:
            if limit is None:
                continue
            within = value is not None and (value >= limit if name == "same class" else value <= limit)
            checks.append(
                Check(
                    name=f"{name} {entry.format}",
                    value=value,
                    bound=None,
                    limit=limit,
                    unit="",
                    verdict=Verdict.PASS if within else Verdict.FAIL,
                    reason=f"{entry.parity.images} images" if within else _why(entry, problem),
                )
            )
    return checks


def _why(entry: ArtefactValidation, problem: str | None) -> str:
    divergence = entry.divergence
    where = (
        ""
        if divergence is None
        else f"; first at {divergence.operator} {divergence.node} ({divergence.module or 'the student'})"
    )
    return f"{problem or 'not comparable'}{where}"


def _accuracy_checks(config: GateConfig, validation: Validation) -> list[Check]:
    checks = []
    paired = validation.onnx_top1
    if config.min_top1 is not None:
        if not paired.candidate.images:
            return [undecided("min_top1", config.min_top1, "", "there are no test images")]
        value = paired.candidate.accuracy
        bound = accuracy_lower_bound(paired.candidate.correct, paired.candidate.images, config.confidence)
        checks.append(bounded("min_top1", value, bound, config.min_top1, paired.candidate.images, at_least=True))
    if config.max_drop is not None:
        images = paired.reference.images
        bound = drop_upper_bound(paired.lost, paired.gained, images, config.confidence)
        checks.append(bounded("max_drop", paired.drop, bound, config.max_drop, images, at_least=False))
        for entry in validation.artefacts:
            if entry.top1 is not None and entry.format != "onnx":
                own = entry.top1
                bound = drop_upper_bound(own.lost, own.gained, images, config.confidence)
                name = f"max_drop {entry.format}"
                checks.append(bounded(name, own.drop, bound, config.max_drop, images, at_least=False))
    return checks
