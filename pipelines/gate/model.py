"""The gate of a model of any origin: evaluated, profiled and decided about in one call, paired with a baseline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ecd_deploy.data.imagefolder.listing import printable
from ecd_deploy.errors import DataError, UsageError
from ecd_deploy.exporters.onnx.file import OnnxFile
from ecd_deploy.files import sha256_bytes, sha256_file, write_atomic
from ecd_deploy.measure.latency import compare_onnx
from ecd_deploy.measure.scored import ScoredImages
from ecd_deploy.measure.statistics import mcnemar_p_value
from ecd_deploy.measure.untrusted import Limits as ProcessLimits
from ecd_deploy.pipelines.evaluate.evaluate import Evaluated, evaluate_files
from ecd_deploy.pipelines.evaluate.files import check_output, write_evaluation
from ecd_deploy.pipelines.evaluate.images import list_images
from ecd_deploy.pipelines.evaluate.target import read_target
from ecd_deploy.pipelines.gate.accuracy import Scores, accuracy_checks
from ecd_deploy.pipelines.gate.baseline import BaselineComparison, class_changes, latency_ratio, ratio_checks
from ecd_deploy.pipelines.gate.check import Check, Verdict, size_checks
from ecd_deploy.pipelines.gate.ci import junit
from ecd_deploy.pipelines.gate.decide import GateReport, make_report, summarise
from ecd_deploy.pipelines.gate.latency import latency_checks
from ecd_deploy.pipelines.gate.limits import Limits, LimitsSource, limits_of
from ecd_deploy.pipelines.gate.separation import audit_check, split_check
from ecd_deploy.pipelines.record.artefacts import AuditReport, read_artefacts
from ecd_deploy.pipelines.record.names import AUDIT_NAME, GATE_NAME, JUNIT_NAME, MANIFEST_NAME, PROFILE_NAME, SPLIT_NAME
from ecd_deploy.pipelines.record.profile import Profile
from ecd_deploy.pipelines.record.run_directory import read_run
from ecd_deploy.pipelines.steps.measure import profile_bytes
from ecd_deploy.recipe.input import InputConfig, read_model_config
from ecd_deploy.recipe.profile import ProfileConfig
from ecd_deploy.split import SplitProof

BASELINE_FOLDER: Final = "baseline"
NOT_MADE_HERE: Final = (
    "This model was not made here: nothing is proved of where its weights come from (no split proof, no audit), and "
    "its logits were compared with those of no reference (no parity)."
)


@dataclass(frozen=True)
class ModelSettings:
    """What a gate of a model goes by.

    Attributes:
        limits: and where they come from.
        profile: how latency is measured.
        input: what models expect whose own metadata do not say so.
    """

    limits: Limits
    profile: ProfileConfig
    input: InputConfig


@dataclass(frozen=True)
class GatedModel:
    """Everything that was found of a model.

    Attributes:
        evaluated: the candidate's accuracy.
        profile: its latency.
        report: the verdict.
    """

    evaluated: Evaluated
    profile: Profile
    report: GateReport


def read_settings(
    target: Path, config_file: Path | None, overrides: tuple[str, ...] = (), *, has_baseline: bool
) -> ModelSettings:
    """Read limits and conditions: of the file, or for a run directory without one, of its recipe.

    Raises:
        UsageError: a model has neither limits nor a baseline.
        RecipeError: the file cannot be used.
    """
    config = read_model_config(config_file, overrides)
    if config_file is None and _is_run(target):
        directory = read_run(target)
        return ModelSettings(limits_of(directory), directory.recipe.profile, config.input)
    if config_file is None and not has_baseline:
        raise UsageError(f"gate {target}: nothing is limited; give --config with [gate], or --baseline")
    if config_file is None:
        source = LimitsSource(file="no file", sha256=sha256_bytes(b""), replaces_recipe=False)
    else:
        source = LimitsSource(file=printable(config_file.name), sha256=sha256_file(config_file), replaces_recipe=False)
    return ModelSettings(Limits(config.gate, source), config.profile, config.input)


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
        out: folder for evaluation, profile, `gate.json` and `junit.xml`.
        baseline: another target, evaluated on the same images.
        skip_bad: leave out images that cannot be read.

    Raises:
        UsageError: a file is absent, or what a model expects is not known.
        ArtefactError: a model or an image cannot be used.
    """
    config = settings.limits.config
    if config.max_drop is not None and not _is_run(target):
        raise UsageError(
            "gate.max_drop compares with the PyTorch student, which a file has none of: set max_baseline_drop"
        )
    check_output(out)
    file, files = read_target(target), list_images(data)
    other = None if baseline is None else read_target(baseline)
    given = settings.input if other is None else _input_of(file, settings)
    found = evaluate_files(
        file,
        files,
        given,
        skip_bad=skip_bad,
        provider=settings.profile.provider,
        batch_size=settings.profile.batch_size,
        reuse=out,
    )
    theirs = None
    if other is not None:
        theirs = evaluate_files(
            other,
            files,
            _input_of(other, settings),
            skip_bad=skip_bad,
            provider=settings.profile.provider,
            batch_size=settings.profile.batch_size,
            reuse=out / BASELINE_FOLDER,
        )
    profiling = _profiling(settings.profile, found)
    model = found.classifier.data
    profile = profile_bytes(file.path.name, model, profiling, ProcessLimits())
    scores, compared = Scores(found.scored), None
    if theirs is not None:
        scores = Scores(found.scored, _paired(found, theirs))
        compared = _compare(found, theirs, scores, profiling, config.confidence)
    checks = [
        *_separation_checks(target),
        *accuracy_checks(config, scores),
        *_preprocessing_checks(found),
        *latency_checks(config, profile, profiling.device),
        *size_checks(file.path.name, len(file.data), config.max_size_mb),
        *ratio_checks(config, compared, profiling.device),
    ]
    report = make_report(
        checks,
        settings.limits,
        baseline=compared,
        profile_sha256=sha256_bytes(profile.to_json()),
        not_proved=None if _is_run(target) else NOT_MADE_HERE,
    )
    write_evaluation(out, found.evaluation, found.files.names, found.scored)
    if theirs is not None:
        write_evaluation(out / BASELINE_FOLDER, theirs.evaluation, theirs.files.names, theirs.scored)
    write_atomic(out / PROFILE_NAME, profile.to_json())
    write_atomic(out / JUNIT_NAME, junit(report.checks))
    write_atomic(out / GATE_NAME, report.to_json())
    summarise(report)
    return GatedModel(found, profile, report)


def _input_of(file: OnnxFile, settings: ModelSettings) -> InputConfig:
    """What the file does not say itself; of two models one may say it and the other not."""
    return settings.input if file.metadata is None else InputConfig(output=settings.input.output)


def _profiling(config: ProfileConfig, found: Evaluated) -> ProfileConfig:
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


def _compare(
    found: Evaluated, theirs: Evaluated, scores: Scores, config: ProfileConfig, confidence: float
) -> BaselineComparison:
    own, before = scores.images, scores.baseline or scores.images
    lost, gained = int((before.correct & ~own.correct).sum()), int((own.correct & ~before.correct).sum())
    comparison = compare_onnx(found.classifier.data, theirs.classifier.data, config)
    return BaselineComparison(
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


def _separation_checks(target: Path) -> list[Check]:
    """What a run made here proves besides."""
    if not _is_run(target):
        return []
    directory = read_run(target)
    artefacts = read_artefacts(directory)
    return [
        split_check(directory.read_json(SPLIT_NAME, SplitProof)),
        audit_check(artefacts, directory.read_json(AUDIT_NAME, AuditReport)),
    ]


def _preprocessing_checks(found: Evaluated) -> list[Check]:
    return [
        Check(
            name="preprocessing", value=None, bound=None, limit=None, unit="", verdict=Verdict.WARNING, reason=warning
        )
        for warning in found.evaluation.warnings
    ]


def _is_run(target: Path) -> bool:
    return (target / MANIFEST_NAME).is_file()
