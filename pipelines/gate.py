"""The gate: each limit of the recipe against what was measured, and one verdict."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from ecd_deploy.errors import ArtefactError
from ecd_deploy.gate_config import GateConfig
from ecd_deploy.measure.statistics import accuracy_lower_bound, drop_upper_bound
from ecd_deploy.pipelines.export import ARTEFACTS_NAME, AUDIT_NAME, ArtefactList, AuditReport
from ecd_deploy.pipelines.profile import PROFILE_NAME, Profile
from ecd_deploy.pipelines.run_directory import RunDirectory
from ecd_deploy.pipelines.split import SPLIT_NAME
from ecd_deploy.pipelines.validate import VALIDATION_NAME, ArtefactValidation, Validation
from ecd_deploy.split import SplitProof

GATE_NAME = "gate.json"


class Verdict(StrEnum):
    """How a check ended."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Check(BaseModel):
    """One limit and what was measured against it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    value: float | None
    """What was observed; None where it could not be measured."""
    bound: float | None
    """The confidence bound that must meet the limit; None where the value itself must."""
    limit: float
    unit: str
    verdict: Verdict
    reason: str


class GateReport(BaseModel):
    """Written to `gate.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    verdict: Verdict
    confidence: float
    checks: tuple[Check, ...]
    not_limited: tuple[str, ...]
    """Limits that the recipe does not set."""


def gate(directory: RunDirectory) -> GateReport:
    """Decide over a run from its validation, profile and artefacts, and write `gate.json`.

    Raises:
        RunDirectoryError: a step is missing.
        ArtefactError: a file was changed after it was written or measured.
    """
    config = directory.recipe.gate
    validation = directory.read_json(VALIDATION_NAME, Validation, made_by="validate")
    profile = directory.read_json(PROFILE_NAME, Profile, made_by="profile")
    artefacts = directory.read_json(ARTEFACTS_NAME, ArtefactList, made_by="export")
    audit = directory.read_json(AUDIT_NAME, AuditReport, made_by="export")
    proof = directory.read_json(SPLIT_NAME, SplitProof, made_by="split")
    for artefact in artefacts.artefacts:
        directory.read(artefact.file)
    _check_measured_bytes(artefacts, validation, profile)
    checks = [
        _split_check(proof),
        _audit_check(artefacts, audit),
        *_parity_checks(config, validation),
        *_accuracy_checks(config, validation),
        *_latency_checks(config, profile),
        *_size_checks(config, artefacts),
    ]
    limits = ("min_top1", "max_drop", "max_abs_diff", "p90_ms_max", "max_size_mb")
    report = GateReport(
        verdict=_overall(checks),
        confidence=config.confidence,
        checks=tuple(checks),
        not_limited=tuple(name for name in limits if getattr(config, name) is None),
    )
    directory.write_json(GATE_NAME, report)
    return report


def _check_measured_bytes(artefacts: ArtefactList, validation: Validation, profile: Profile) -> None:
    exported = {artefact.file: artefact.sha256 for artefact in artefacts.artefacts}
    measured = {entry.file: entry.sha256 for entry in validation.artefacts}
    if exported != measured:
        raise ArtefactError("the artefacts were exported anew after `validate`: run `validate` again")
    if exported.get(profile.file) != profile.sha256:
        raise ArtefactError(f"{profile.file} was exported anew after `profile`: run `profile` again")


def _overall(checks: list[Check]) -> Verdict:
    verdicts = {check.verdict for check in checks}
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    return Verdict.INCONCLUSIVE if Verdict.INCONCLUSIVE in verdicts else Verdict.PASS


def _split_check(proof: SplitProof) -> Check:
    return Check(
        name="split proof",
        value=float(proof.passed),
        bound=None,
        limit=1.0,
        unit="",
        verdict=Verdict.PASS if proof.passed else Verdict.FAIL,
        reason="the student is separate from the teacher" if proof.passed else "the student is not separate",
    )


def _audit_check(artefacts: ArtefactList, audit: AuditReport) -> Check:
    if {entry.sha256 for entry in audit.audits} != {artefact.sha256 for artefact in artefacts.artefacts}:
        raise ArtefactError("the artefacts are not those that were audited: run `export` again")
    failed = [entry.format for entry in audit.audits if not entry.passed]
    unread = [entry.format for entry in audit.audits if entry.not_done_because is not None]
    passed = len(audit.audits) - len(failed) - len(unread)
    verdict, reason = Verdict.PASS, f"{sum(len(entry.tensors) for entry in audit.audits)} tensors traced to the student"
    if failed:
        verdict, reason = Verdict.FAIL, f"{', '.join(failed)} hold something else than the student"
    elif unread:
        verdict, reason = Verdict.INCONCLUSIVE, f"there is no reader of {', '.join(unread)}"
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
    departs = entry.departs
    where = (
        "" if departs is None else f"; first at {departs.operator} {departs.node} ({departs.module or 'the student'})"
    )
    return f"{problem or 'not comparable'}{where}"


def _accuracy_checks(config: GateConfig, validation: Validation) -> list[Check]:
    checks = []
    paired = validation.onnx_top1
    if config.min_top1 is not None:
        value = paired.candidate.accuracy
        bound = accuracy_lower_bound(paired.candidate.correct, paired.candidate.images, config.confidence)
        checks.append(_bounded("min_top1", value, bound, config.min_top1, paired.candidate.images, at_least=True))
    if config.max_drop is not None:
        images = paired.reference.images
        bound = drop_upper_bound(paired.lost, paired.gained, images, config.confidence)
        checks.append(_bounded("max_drop", paired.drop, bound, config.max_drop, images, at_least=False))
        for entry in validation.artefacts:
            if entry.top1 is not None and entry.format != "onnx":
                own = entry.top1
                bound = drop_upper_bound(own.lost, own.gained, images, config.confidence)
                name = f"max_drop {entry.format}"
                checks.append(_bounded(name, own.drop, bound, config.max_drop, images, at_least=False))
    return checks


def _bounded(name: str, value: float, bound: float, limit: float, images: int, *, at_least: bool) -> Check:
    sign = 1.0 if at_least else -1.0
    if sign * bound >= sign * limit:
        verdict, reason = Verdict.PASS, f"{images} images"
    elif sign * value >= sign * limit:
        verdict, reason = Verdict.INCONCLUSIVE, f"{images} images are too few to prove it"
    else:
        verdict, reason = Verdict.FAIL, f"{images} images"
    return Check(name=name, value=value, bound=bound, limit=limit, unit="", verdict=verdict, reason=reason)


def _latency_checks(config: GateConfig, profile: Profile) -> list[Check]:
    if config.p90_ms_max is None:
        return []
    latency = profile.latency
    p90 = latency.at(0.9)
    if latency.contended:
        verdict = Verdict.INCONCLUSIVE
        reason = f"contended: {'; '.join(latency.reasons) or 'the host was busy'}"
    elif p90.value_ms is None or p90.upper_bound_ms is None:
        verdict = Verdict.INCONCLUSIVE
        reason = f"{len(latency.samples_ms)} samples, {p90.samples_needed} needed"
    elif p90.upper_bound_ms <= config.p90_ms_max:
        verdict, reason = Verdict.PASS, f"{len(latency.samples_ms)} samples, {latency.threads} thread(s)"
    elif p90.value_ms <= config.p90_ms_max:
        verdict, reason = Verdict.INCONCLUSIVE, "the upper bound exceeds the limit"
    else:
        verdict, reason = Verdict.FAIL, f"{len(latency.samples_ms)} samples, {latency.threads} thread(s)"
    return [
        Check(
            name="p90_ms_max",
            value=p90.value_ms,
            bound=p90.upper_bound_ms,
            limit=config.p90_ms_max,
            unit="ms",
            verdict=verdict,
            reason=reason,
        )
    ]


def _size_checks(config: GateConfig, artefacts: ArtefactList) -> list[Check]:
    if config.max_size_mb is None:
        return []
    size = artefacts.find("onnx").bytes / 1e6
    return [
        Check(
            name="max_size_mb",
            value=size,
            bound=None,
            limit=config.max_size_mb,
            unit="MB",
            verdict=Verdict.PASS if size <= config.max_size_mb else Verdict.FAIL,
            reason="student.onnx",
        )
    ]
