"""The gate: each limit of the recipe against what was measured, and one verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from ecd_deploy.errors import ArtefactError
from ecd_deploy.pipelines.gate.accuracy import Scores, accuracy_checks
from ecd_deploy.pipelines.gate.baseline import BaselineComparison, compare_with_baseline, ratio_checks, read_baseline
from ecd_deploy.pipelines.gate.check import Check, Verdict, named, overall, size_checks
from ecd_deploy.pipelines.gate.ci import append_step_summary, comment_markdown, junit, summary_markdown
from ecd_deploy.pipelines.gate.latency import latency_checks
from ecd_deploy.pipelines.gate.limits import NO_ACCURACY_LIMIT, Limits, LimitsSource, limits_of, read_limits
from ecd_deploy.pipelines.gate.separation import checks_of_run, provider_checks
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

    schema_version: Literal[6] = 6
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
    comparisons: tuple[BaselineComparison, ...] = ()
    """With a baseline: of each artefact or model that is decided about."""
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
class Decided:
    """What was found of an artefact of a run, or of a model, that is decided about.

    Attributes:
        format: of the artefact; empty for a model.
        file: its name.
        bytes: its size.
        scores: on the test images, with the baseline's.
        profile: latency and memory.
        on_provider: checks of the execution provider that it was measured on.
        compared: with the baseline; None without one.
    """

    format: str
    file: str
    bytes: int
    scores: Scores
    profile: Profile
    on_provider: Sequence[Check]
    compared: BaselineComparison | None


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
    validation, artefacts = evidence.validation, evidence.artefacts
    for artefact in artefacts.artefacts:
        directory.read(artefact.file)
    of_all = checks_of_run(config, evidence.proof, artefacts, evidence.audit, validation)
    shipped = validation.shipping(config.artefact)
    profiles = [_profile_of(entry, evidence) for entry in shipped]
    theirs = None if baseline is None else read_baseline(baseline)
    decided = []
    for entry, profile in zip(shipped, profiles, strict=True):
        own = evidence.predictions[entry.format]
        compared = None if theirs is None else compare_with_baseline(directory, entry, own, theirs, config)
        decided.append(
            Decided(
                format=entry.format,
                file=PurePosixPath(entry.file).name,
                bytes=artefacts.find(entry.format).bytes,
                scores=Scores(own, None if compared is None else compared.images),
                profile=profile,
                on_provider=provider_checks(entry, profile),
                compared=None if compared is None else compared.found,
            )
        )
    report = make_report(
        [*of_all, *checks_of(decided, config, directory.recipe.profile.device)],
        limits,
        decided,
        artefacts=tuple(Shipped(format=entry.format, file=entry.file, sha256=entry.sha256) for entry in shipped),
        profile_sha256=directory.manifest.entry(PROFILE_NAME).sha256,
    )
    directory.write_json(GATE_NAME, report)
    directory.write(JUNIT_NAME, junit(report.checks))
    summarise(report)
    return report


def _profile_of(entry: ArtefactValidation, evidence: Evidence) -> Profile:
    """What was measured of an artefact.

    Raises:
        ArtefactError: it was exported again after it was profiled, or was not profiled.
    """
    profile = evidence.profiles.get(entry.file)
    if profile is None or profile.sha256 != entry.sha256:
        before = "was not profiled" if profile is None else "was exported again after `profile`"
        raise ArtefactError(f"{entry.file} {before}: run `profile` again, with --format {entry.format}")
    return profile


def checks_of(decided: Sequence[Decided], config: GateConfig, device: str | None) -> list[Check]:
    """The checks of each artefact or model, with its format in their names where all of a run are decided about."""
    found = []
    for one in decided:
        checks = [
            *accuracy_checks(config, one.scores),
            *one.on_provider,
            *latency_checks(config, one.profile, device),
            *size_checks(one.file, one.bytes, config.max_size_mb),
            *ratio_checks(config, one.compared, device),
        ]
        found += checks if config.artefact != "all" else [named(check, one.format) for check in checks]
    return found


def make_report(
    checks: Sequence[Check],
    limits: Limits,
    decided: Sequence[Decided],
    *,
    profile_sha256: str,
    artefacts: tuple[Shipped, ...] = (),
    not_proved: str | None = None,
) -> GateReport:
    """Put the checks together with the limits that they are of, and with the verdict over all."""
    comparisons = tuple(one.compared for one in decided if one.compared is not None)
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
        limits_accuracy=bool(comparisons) or limits.config.limits_accuracy(),
        profile_sha256=profile_sha256,
        comparisons=comparisons,
        not_proved=not_proved,
    )


def summarise(report: GateReport) -> None:
    """Add the verdict to the summary of the CI step, if there is one."""
    append_step_summary(
        summary_markdown(report.verdict, report.checks, report.comparisons, limits=report.basis, warning=report.warning)
    )


def comment(report: GateReport) -> str:
    """The verdict as the comment of a pull request: what needs a reader first, what passed folded away."""
    return comment_markdown(
        report.verdict, report.checks, report.comparisons, limits=report.basis, warning=report.warning
    )
