"""The gate of a model of any origin: evaluated, profiled and decided about in one call, paired with a baseline."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ecd_deploy.errors import DataError, UsageError
from ecd_deploy.files import sha256_bytes, write_atomic
from ecd_deploy.measure.latency.measurement import compare_onnx
from ecd_deploy.measure.predictors.untrusted import Limits as ProcessLimits
from ecd_deploy.measure.scores.scored import ScoredImages
from ecd_deploy.measure.statistics import mcnemar_p_value
from ecd_deploy.pipelines.evaluate.evaluate import Evaluated, evaluate_files
from ecd_deploy.pipelines.evaluate.images import list_images
from ecd_deploy.pipelines.evaluate.result import EVALUATION_NAME, write_evaluation
from ecd_deploy.pipelines.evaluate.target import Target, read_counterpart, read_shipped
from ecd_deploy.pipelines.gate.accuracy import Scores
from ecd_deploy.pipelines.gate.baseline import BaselineComparison, class_changes, latency_ratio
from ecd_deploy.pipelines.gate.check import Check, Verdict
from ecd_deploy.pipelines.gate.ci import junit
from ecd_deploy.pipelines.gate.decide import Decided, GateReport, Shipped, checks_of, make_report, summarise
from ecd_deploy.pipelines.gate.limits import ModelSettings
from ecd_deploy.pipelines.gate.separation import checks_of_run, difference_checks, provider_checks
from ecd_deploy.pipelines.record.artefacts import AuditReport, read_artefacts
from ecd_deploy.pipelines.record.names import (
    AUDIT_NAME,
    GATE_NAME,
    HTML_NAME,
    JUNIT_NAME,
    MARKDOWN_NAME,
    PROFILE_NAME,
    SPLIT_NAME,
    VALIDATION_NAME,
)
from ecd_deploy.pipelines.record.profile import Profile
from ecd_deploy.pipelines.record.run_directory import RunDirectory, is_run, read_run
from ecd_deploy.pipelines.record.validation import ArtefactValidation, Validation
from ecd_deploy.pipelines.steps.measure import profile_bytes
from ecd_deploy.recipe.gate import GateConfig
from ecd_deploy.recipe.input import InputConfig
from ecd_deploy.recipe.profile import ProfileConfig
from ecd_deploy.split import SplitProof

BASELINE_FOLDER: Final = "baseline"
NOT_MADE_HERE: Final = (
    "No run directory was given: nothing is proved of where the weights of this model come from (no split proof, no "
    "audit), and its logits were compared with those of no reference (no parity)."
)


@dataclass(frozen=True)
class GatedModel:
    """Everything that was found of a model.

    Attributes:
        evaluated: the candidate's accuracy, or of several artefacts of a run that of the first.
        profile: its latency.
        report: the verdict.
    """

    evaluated: Evaluated
    profile: Profile
    report: GateReport


def remove_verdict(out: Path, *, keep_baseline: bool) -> bool:
    """Remove what an earlier gate decided, and its baseline; what it evaluated may be of use again.

    Returns:
        Whether there was an evaluation.
    """
    for name in (GATE_NAME, JUNIT_NAME, PROFILE_NAME, HTML_NAME, MARKDOWN_NAME):
        (out / name).unlink(missing_ok=True)
    if not keep_baseline and (out / BASELINE_FOLDER / EVALUATION_NAME).is_file():
        shutil.rmtree(out / BASELINE_FOLDER)
    return (out / EVALUATION_NAME).is_file()


def gate_model(
    target: Path,
    data: Path,
    settings: ModelSettings,
    out: Path,
    *,
    baseline: Path | None = None,
    skip_bad: bool = False,
) -> GatedModel:
    """Evaluate and profile a model, decide about it, and write what was found.

    Args:
        target: an ONNX file, a run directory or a bundle.
        data: labelled images; see `evaluate`.
        settings: limits and conditions.
        out: folder for evaluation, profile, `gate.json` and `junit.xml`; where all artefacts of a run are decided
            about, those after the first have a folder of their file's name in it.
        baseline: another target, evaluated on the same images.
        skip_bad: leave out images that cannot be read.

    Raises:
        UsageError: a file is absent, or what a model expects is not known.
        ArtefactError: a model or an image cannot be used.
    """
    config = settings.limits.config
    directory = read_run(target) if is_run(target) else None
    if config.max_drop is not None and directory is None:
        raise UsageError(
            "gate.max_drop compares with the PyTorch student, which a file has none of: set max_baseline_drop"
        )
    if config.artefact != GateConfig().artefact and directory is None:
        raise UsageError(f"gate.artefact = {config.artefact!r}: only of a run directory")
    given, files = read_shipped(target, config.artefact), list_images(data)
    entries = [None if directory is None else _entry(directory, model) for model in given]
    formats = [entry.format if entry is not None and config.artefact == "all" else None for entry in entries]
    others = [] if baseline is None else [read_counterpart(baseline, name) for name in formats]
    olds = list({other.file.path: other for other in others}.values())
    conditions = settings.profile

    def evaluated(model: Target, said: InputConfig, reuse: Path) -> Evaluated:
        return evaluate_files(
            model,
            files,
            said,
            skip_bad=skip_bad,
            provider=conditions.provider,
            batch_size=conditions.batch_size,
            reuse=reuse,
        )

    places, old_places = _places(out, given), _places(out / BASELINE_FOLDER, olds)
    found = [
        evaluated(model, settings.input if baseline is None else _input_of(model, settings), place)
        for model, place in zip(given, places, strict=True)
    ]
    found_of = {
        old.file.path: evaluated(old, _input_of(old, settings, optional=True), place)
        for old, place in zip(olds, old_places, strict=True)
    }
    theirs = [found_of.get(other.file.path) for other in others] or [None] * len(found)
    decided = [
        _decided(one, before, entry, conditions, config.confidence)
        for one, before, entry in zip(found, theirs, entries, strict=True)
    ]
    checks = [
        *([] if directory is None else _run_checks(directory, config)),
        *checks_of(decided, config, conditions.device),
        *_warnings(found[0], theirs[0]),
    ]
    report = make_report(
        checks,
        settings.limits,
        decided,
        artefacts=tuple(
            Shipped(format=entry.format, file=entry.file, sha256=entry.sha256) for entry in entries if entry is not None
        ),
        profile_sha256=sha256_bytes(decided[0].profile.to_json()),
        not_proved=NOT_MADE_HERE if directory is None else None,
    )
    for one, place in zip((*found, *found_of.values()), (*places, *old_places), strict=True):
        write_evaluation(place, one.evaluation, one.files.names, one.scored)
    for measured, place in zip(decided, places, strict=True):
        write_atomic(place / PROFILE_NAME, measured.profile.to_json())
    write_atomic(out / JUNIT_NAME, junit(report.checks))
    write_atomic(out / GATE_NAME, report.to_json())
    summarise(report)
    return GatedModel(found[0], decided[0].profile, report)


def _places(out: Path, models: Sequence[Target]) -> tuple[Path, ...]:
    """Where the results of each go: those of the first into the folder itself."""
    return tuple(out / model.file.path.name if at else out for at, model in enumerate(models))


def _decided(
    found: Evaluated,
    theirs: Evaluated | None,
    entry: ArtefactValidation | None,
    conditions: ProfileConfig,
    confidence: float,
) -> Decided:
    """What is decided about of one model, timed here; `entry` is what `validate` found of it in a run."""
    file, paired = found.classifier.file, None if theirs is None else _paired(found, theirs)
    profile = profile_bytes(file.path.name, found.classifier.data, _profiling(found, conditions), ProcessLimits())
    return Decided(
        format="" if entry is None else entry.format,
        file=file.path.name,
        bytes=len(file.data),
        scores=Scores(found.scored, paired),
        profile=profile,
        on_provider=difference_checks(profile, file.budget) if entry is None else provider_checks(entry, profile),
        compared=None if theirs is None else _compare(found, theirs, conditions, confidence),
    )


def _input_of(target: Target, settings: ModelSettings, *, optional: bool = False) -> InputConfig:
    """What the file does not say itself; of two models one may say it and the other not.

    Where it is `optional`, an output that the file does not have is not asked for.
    """
    file, given, output = target.file, settings.input, settings.input.output
    if target.bundled is not None:
        return InputConfig()
    if optional and output not in {port.name for port in file.outputs}:
        output = None
    return given.model_copy(update={"output": output}) if file.metadata is None else InputConfig(output=output)


def _profiling(found: Evaluated, config: ProfileConfig) -> ProfileConfig:
    fixed = found.classifier.expectation.batch
    return config if fixed is None else config.model_copy(update={"batch_size": fixed})


def _paired(found: Evaluated, theirs: Evaluated) -> ScoredImages:
    """The baseline's probabilities on the same images, its classes in the candidate's order.

    Raises:
        DataError: it tells other classes apart.
    """
    ours, other = found.scored, theirs.scored
    if sorted(ours.classes) != sorted(other.classes) or found.files.names != theirs.files.names:
        raise DataError(f"{theirs.classifier.file.path} cannot be compared with: it has other classes or other images")
    order = np.array([other.classes.index(name) for name in ours.classes])
    return ScoredImages(other.probabilities[:, order], ours.labels, ours.classes, ours.slices)


def _compare(found: Evaluated, theirs: Evaluated, config: ProfileConfig, confidence: float) -> BaselineComparison:
    own, before = found.scored, _paired(found, theirs)
    lost, gained = int((before.correct & ~own.correct).sum()), int((own.correct & ~before.correct).sum())
    comparison = compare_onnx(found.classifier.data, theirs.classifier.data, _profiling(found, config))
    return BaselineComparison(
        file=found.classifier.file.path.name,
        baseline_file=theirs.classifier.file.path.name,
        recipe_digest=None,
        model_sha256=theirs.classifier.file.sha256,
        images=len(own),
        own_images=len(own),
        evaluated_anew=False,
        lost=lost,
        gained=gained,
        mcnemar_p=mcnemar_p_value(lost, gained),
        regressions=class_changes(own, before),
        latency=latency_ratio(comparison, confidence),
    )


def _run_checks(directory: RunDirectory, config: GateConfig) -> list[Check]:
    """What a run made here proves besides, and its limits against the PyTorch student."""
    return checks_of_run(
        config,
        directory.read_json(SPLIT_NAME, SplitProof),
        read_artefacts(directory),
        directory.read_json(AUDIT_NAME, AuditReport),
        directory.read_json(VALIDATION_NAME, Validation),
    )


def _entry(directory: RunDirectory, model: Target) -> ArtefactValidation:
    """What `validate` found of an artefact."""
    file = model.file.path.relative_to(directory.root).as_posix()
    entries = directory.read_json(VALIDATION_NAME, Validation).artefacts
    return next(entry for entry in entries if entry.file == file)


def _warnings(found: Evaluated, theirs: Evaluated | None) -> list[Check]:
    """Signs that a model was not given what it expects: a baseline that was not loses every comparison."""
    own = found.evaluation
    rows = [("preprocessing", warning) for warning in own.warnings]
    rows += [("classes", warning) for warning in [own.classes_warning] if warning is not None]
    if theirs is not None:
        rows += [("preprocessing baseline", warning) for warning in theirs.evaluation.warnings]
        if theirs.evaluation.classes_from != own.classes_from:
            reason = (
                f"its classes are named by {theirs.evaluation.classes_from}, and the candidate's by "
                f"{own.classes_from}: check that its outputs are in that order"
            )
            rows.append(("classes baseline", reason))
    return [
        Check(name=name, value=None, bound=None, limit=None, unit="", verdict=Verdict.WARNING, reason=reason)
        for name, reason in rows
    ]
