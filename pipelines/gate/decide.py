"""The gate: each limit of the recipe against what was measured, and one verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ecd_deploy.errors import ArtefactError
from ecd_deploy.pipelines.gate.accuracy import Scores, accuracy_checks, drop_checks
from ecd_deploy.pipelines.gate.baseline import BaselineComparison, Compared, compare_with_baseline, ratio_checks
from ecd_deploy.pipelines.gate.check import Check, Verdict, named, overall, size_checks
from ecd_deploy.pipelines.gate.ci import append_step_summary, comment_markdown, junit, summary_markdown
from ecd_deploy.pipelines.gate.latency import latency_checks
from ecd_deploy.pipelines.gate.limits import NO_ACCURACY_LIMIT, Limits, LimitsSource, limits_of, read_limits
from ecd_deploy.pipelines.gate.separation import audit_check, parity_checks, provider_checks, split_check
from ecd_deploy.pipelines.record.artefacts import ArtefactList, AuditReport, read_artefacts
from ecd_deploy.pipelines.record.names import (
    AUDIT_NAME,
    GATE_NAME,
    JUNIT_NAME,
    PROFILE_NAME,
    PROFILES_FOLDER,
    SPLIT_NAME,
    VALIDATION_NAME,
)
from ecd_deploy.pipelines.record.predictions import StoredPredictions, read_predictions
from ecd_deploy.pipelines.record.profile import Profile
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.pipelines.record.validation import ArtefactValidation, Validation
from ecd_deploy.recipe.gate import GateConfig
from ecd_deploy.records import Record
from ecd_deploy.split import SplitProof

__all__ = ["Check", "Evidence", "GateReport", "Verdict", "gate", "read_evidence"]


class Shipped(Record):
    """An artefact that is decided about."""

    format: str
    file: str
    sha256: str


class GateReport(Record):
    """Written to `gate.json`."""

    schema_version: Literal[5] = 5
    verdict: Verdict
    confidence: float
    checks: tuple[Check, ...]
    limits: LimitsSource
    artefacts: tuple[Shipped, ...] = ()
    """Of a run: those that the limits on accuracy, latency, memory and size are of."""
    not_limited: tuple[str, ...]
    """Limits that are not set."""
    limits_accuracy: bool
    """Whether any limit is on accuracy; without one, a pass says nothing about it."""
    profile_sha256: str | None = None
    """Of the `profile.json` that holds the raw latencies."""
    baseline: BaselineComparison | None = None
    not_proved: str | None = None
    """What a run made here proves besides, and this gate does not; None if nothing."""

    def values(self) -> dict[str, float]:
        """What was observed of all that limits are of, by the limit's name."""
        return {check.name: check.value for check in self.checks if check.value is not None}

    @property
    def basis(self) -> str:
        """What the verdict rests on: whose limits, and what was not proved."""
        return " ".join(filter(None, (self.limits.words(), self.not_proved)))

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
    profiles: Mapping[str, Profile]
    """By the file that was measured."""
    predictions: Mapping[str, StoredPredictions]
    """By the format of the artefact."""


def read_evidence(directory: RunDirectory) -> Evidence:
    """Read the results of the steps before the gate.

    Raises:
        RunDirectoryError: naming the step that has not been run.
        ArtefactError: a file was changed.
    """
    validation, artefacts = directory.read_json(VALIDATION_NAME, Validation), read_artefacts(directory)
    return Evidence(
        validation=validation,
        profiles=_read_profiles(directory, artefacts),
        artefacts=artefacts,
        audit=directory.read_json(AUDIT_NAME, AuditReport),
        proof=directory.read_json(SPLIT_NAME, SplitProof),
        predictions=read_predictions(directory),
    )


def _read_profiles(directory: RunDirectory, artefacts: ArtefactList) -> dict[str, Profile]:
    names = (f"{PROFILES_FOLDER}/{artefact.format}.json" for artefact in artefacts.artefacts)
    others = (
        Profile.from_json(directory.read(name), f"{directory.root / name} is not a profile")
        for name in names
        if name in directory.manifest.files
    )
    found = {profile.file: profile for profile in others}
    first = directory.read_json(PROFILE_NAME, Profile)
    return {**found, first.file: first}


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
    validation, artefacts = evidence.validation, evidence.artefacts
    for artefact in artefacts.artefacts:
        directory.read(artefact.file)
    check_measured_bytes(artefacts, validation)
    shipped = validation.shipping(config.artefact)
    compared = None if baseline is None else compare_with_baseline(directory, shipped[0], baseline, config.confidence)
    found = None if compared is None else compared.found
    checks = [
        split_check(evidence.proof),
        audit_check(artefacts, evidence.audit),
        *parity_checks(config, validation),
        *drop_checks(config, validation),
        *(check for entry in shipped for check in _checks_of(entry, config, evidence, compared, device)),
        *ratio_checks(config, found, device),
    ]
    report = make_report(
        checks,
        limits,
        artefacts=tuple(Shipped(format=entry.format, file=entry.file, sha256=entry.sha256) for entry in shipped),
        profile_sha256=directory.manifest.entry(PROFILE_NAME).sha256,
        baseline=found,
    )
    directory.write_json(GATE_NAME, report)
    directory.write(JUNIT_NAME, junit(report.checks))
    summarise(report)
    return report


def _checks_of(
    entry: ArtefactValidation, config: GateConfig, evidence: Evidence, compared: Compared | None, device: str | None
) -> list[Check]:
    """The checks of one artefact, with its format in their names where all are decided about.

    Raises:
        ArtefactError: it was exported again after it was profiled, or was not profiled.
    """
    profile = evidence.profiles.get(entry.file)
    if profile is None or profile.sha256 != entry.sha256:
        before = "was not profiled" if profile is None else "was exported again after `profile`"
        raise ArtefactError(f"{entry.file} {before}: run `profile` again, with --format {entry.format}")
    checks = [
        *accuracy_checks(
            config, Scores(evidence.predictions[entry.format], None if compared is None else compared.images)
        ),
        *provider_checks(entry, profile),
        *latency_checks(config, profile, device),
        *size_checks(entry.file, evidence.artefacts.find(entry.format).bytes, config.max_size_mb),
    ]
    if config.artefact != "all":
        return checks
    return [named(check, entry.format) for check in checks]


def make_report(
    checks: Sequence[Check],
    limits: Limits,
    *,
    profile_sha256: str,
    baseline: BaselineComparison | None,
    artefacts: tuple[Shipped, ...] = (),
    not_proved: str | None = None,
) -> GateReport:
    """Put the checks together with the limits that they are of, and with the verdict over all."""
    usual = ("min_top1", "max_drop", "max_abs_diff", "p90_ms_max", "max_size_mb")
    against_student = ("max_drop", "max_abs_diff")
    return GateReport(
        verdict=overall(checks),
        confidence=limits.config.confidence,
        checks=tuple(checks),
        limits=limits.source,
        artefacts=artefacts,
        not_limited=tuple(
            name
            for name in usual
            if getattr(limits.config, name) is None and (not_proved is None or name not in against_student)
        ),
        limits_accuracy=baseline is not None or limits.config.limits_accuracy(),
        profile_sha256=profile_sha256,
        baseline=baseline,
        not_proved=not_proved,
    )


def summarise(report: GateReport) -> None:
    """Add the verdict to the summary of the CI step, if there is one."""
    append_step_summary(
        summary_markdown(report.verdict, report.checks, report.baseline, limits=report.basis, warning=report.warning)
    )


def comment(report: GateReport) -> str:
    """The verdict as the comment of a pull request: what needs a reader first, what passed folded away."""
    return comment_markdown(report.verdict, report.checks, report.baseline, limits=report.basis, warning=report.warning)


def check_measured_bytes(artefacts: ArtefactList, validation: Validation) -> None:
    """Check that what was validated is what was exported.

    Raises:
        ArtefactError: it is not.
    """
    exported = {artefact.file: artefact.sha256 for artefact in artefacts.artefacts}
    measured = {entry.file: entry.sha256 for entry in validation.artefacts}
    if exported != measured:
        raise ArtefactError("the artefacts were exported again after `validate`: run `validate` again")
