"""A run against another one: accuracy paired by image, latency interleaved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path, PurePosixPath

import numpy as np

from ecd_deploy.errors import ArtefactError, RunDirectoryError, SchemaError
from ecd_deploy.measure.latency.measurement import Comparison, compare_onnx
from ecd_deploy.measure.scores.scored import ScoredImages
from ecd_deploy.measure.statistics import mcnemar_p_value, percentile
from ecd_deploy.measure.statistics.series import median_bounds
from ecd_deploy.pipelines.gate.check import Check, Verdict, undecided
from ecd_deploy.pipelines.record.artefacts import Artefact, ArtefactList
from ecd_deploy.pipelines.record.names import ARTEFACTS_NAME, VALIDATION_NAME
from ecd_deploy.pipelines.record.predictions import StoredPredictions, lost_and_gained, read_predictions
from ecd_deploy.pipelines.record.run_directory import RunDirectory, read_run
from ecd_deploy.pipelines.record.validation import ArtefactValidation, Validation
from ecd_deploy.recipe.gate import GateConfig
from ecd_deploy.records import Record

_DEFAULT_RATIO = 1.1


class ClassChange(Record):
    """A class that the candidate classifies worse than the baseline."""

    name: str
    images: int
    baseline_correct: int
    candidate_correct: int


class LatencyRatio(Record):
    """p50 of the candidate over that of the baseline, in random blocks; raw block medians are kept."""

    ratio: float
    lower: float | None
    """Confidence bound on the ratio, like `upper`; None where the blocks are too few for one."""
    upper: float | None
    same_model: float
    """The A/A floor: the same ratio of two sessions of the baseline's model, in the same blocks."""
    comparison: Comparison

    @property
    def text(self) -> str:
        """The ratio with its bounds."""
        if self.lower is None or self.upper is None:
            return f"{self.ratio:.3f}, of too few blocks for bounds"
        return f"{self.ratio:.3f} [{self.lower:.3f}, {self.upper:.3f}]"


class BaselineComparison(Record):
    """Everything that was found of one artefact against the baseline; part of `gate.json`."""

    file: str
    """That is decided about."""
    baseline_file: str
    recipe_digest: str | None
    """Of the baseline's run; None where it is a file."""
    model_sha256: str
    images: int
    """Test images of the candidate, on which both are compared."""
    own_images: int
    """Test images of the baseline's own run."""
    evaluated_anew: bool
    """Whether those were others, so that the baseline's ONNX student was run on the candidate's."""
    lost: int
    """Images that only the baseline classifies correctly."""
    gained: int
    mcnemar_p: float
    """Exact two-sided McNemar test; a large value is no evidence that nothing was lost."""
    regressions: tuple[ClassChange, ...]
    latency: LatencyRatio


@dataclass(frozen=True)
class Baseline:
    """A run to compare with, which is only read."""

    directory: RunDirectory
    artefacts: ArtefactList
    validation: Validation
    predictions: Mapping[str, StoredPredictions]
    """By the format of the artefact."""


@dataclass(frozen=True)
class Compared:
    """A comparison, and the test images of the candidate with the baseline's probabilities."""

    found: BaselineComparison
    images: StoredPredictions


def read_baseline(root: Path) -> Baseline:
    """Read what a run is compared with.

    Raises:
        RunDirectoryError: it is missing, not validated, or of another schema.
        ArtefactError: a file was changed.
    """
    try:
        directory = read_run(root)
        return Baseline(
            directory=directory,
            predictions=read_predictions(directory),
            validation=directory.read_json(VALIDATION_NAME, Validation),
            artefacts=directory.read_json(ARTEFACTS_NAME, ArtefactList),
        )
    except SchemaError as error:
        raise RunDirectoryError(f"{root} cannot be compared with: {error}") from error


def compare_with_baseline(
    directory: RunDirectory, entry: ArtefactValidation, own: StoredPredictions, given: Baseline, config: GateConfig
) -> Compared:
    """Compare an artefact of a run with what a baseline ships, or where all are, with the baseline's of its format.

    If their test images differ, the baseline's artefact is evaluated anew on those of the run.

    Args:
        directory: of the run.
        entry: the artefact.
        own: its predictions.
        given: the baseline.
        config: which artefacts are decided about, and the confidence of the ratio's bounds.

    Raises:
        RunDirectoryError: the baseline is of other classes or shapes of images.
        DataError: the run's test images, which the baseline is evaluated on, cannot be read.
        ArtefactError: a file of either was changed.
    """
    baseline = given.directory
    alike = entry.format if config.artefact == "all" else None
    artefact = given.artefacts.find(given.validation.counterpart(alike, baseline.recipe.gate.artefact).format)
    theirs = given.predictions[artefact.format]
    _check_classes(baseline.root, own.classes, theirs.classes)
    own_images = len(theirs.labels)
    paired = lost_and_gained(own, theirs)
    evaluated_anew = paired is None
    if paired is None:
        theirs = _predict_anew(baseline, artefact, directory)
        paired = lost_and_gained(own, theirs)
    if paired is None:
        raise ArtefactError(f"{directory.root}: its predictions are not of its test images: run `validate` again")
    lost, gained = paired
    comparison = compare_onnx(directory.read(entry.file), baseline.read(artefact.file), directory.recipe.profile)
    found = BaselineComparison(
        file=PurePosixPath(entry.file).name,
        baseline_file=PurePosixPath(artefact.file).name,
        recipe_digest=baseline.manifest.recipe_digest,
        model_sha256=artefact.sha256,
        images=len(own.labels),
        own_images=own_images,
        evaluated_anew=evaluated_anew,
        lost=lost,
        gained=gained,
        mcnemar_p=mcnemar_p_value(lost, gained),
        regressions=class_changes(own, theirs),
        latency=latency_ratio(comparison, config.confidence),
    )
    return Compared(found, theirs)


def latency_ratio(comparison: Comparison, confidence: float) -> LatencyRatio:
    """The median of the blocks' ratios with its bounds, and the same of the baseline against itself.

    Blocks that follow each other resemble each other; the bounds are those of the fewer independent ones.
    """
    own, first, again = (np.array(session.block_p50_ms) for session in comparison.sessions)
    lower, upper = median_bounds((own / first).tolist(), confidence)
    return LatencyRatio(
        ratio=percentile((own / first).tolist(), 0.5),
        lower=lower if isfinite(lower) else None,
        upper=upper if isfinite(upper) else None,
        same_model=percentile((again / first).tolist(), 0.5),
        comparison=comparison,
    )


def ratio_checks(config: GateConfig, found: BaselineComparison | None, device: str | None) -> list[Check]:
    """Check the latency ratio by its bound widened by the A/A floor."""
    if found is not None:
        return [_ratio_check(config.max_p50_ratio or _DEFAULT_RATIO, found.latency, device)]
    limit = config.max_p50_ratio
    return [] if limit is None else [undecided("max_p50_ratio", limit, "", "no baseline was given")]


def _ratio_check(limit: float, found: LatencyRatio, device: str | None) -> Check:
    name = "max_p50_ratio"
    floor = abs(found.same_model - 1)
    upper = None if found.upper is None else found.upper * (1 + floor)
    lower = None if found.lower is None else found.lower / (1 + floor)
    host = found.comparison.host
    blocks = len(found.comparison.sessions[0].block_p50_ms)
    reason = f"{blocks} interleaved blocks on this host, A/A floor {floor:.1%}"
    if device is not None:
        return undecided(name, limit, "", f"measured on this host, not on {device}")
    if host.contended:
        verdict, reason = Verdict.INCONCLUSIVE, f"contended: {'; '.join(host.reasons)}"
    elif floor > limit - 1:
        verdict, reason = Verdict.INCONCLUSIVE, f"the A/A floor of this host, {floor:.1%}, exceeds the margin"
    elif upper is None or lower is None:
        verdict, reason = Verdict.INCONCLUSIVE, f"{reason}: too few for bounds, which profile.max_seconds may allow"
    elif upper <= limit:
        verdict = Verdict.PASS
    elif lower > limit:
        verdict = Verdict.FAIL
    else:
        verdict, reason = Verdict.INCONCLUSIVE, f"{reason}: the limit lies between the bounds"
    return Check(name=name, value=found.ratio, bound=upper, limit=limit, unit="", verdict=verdict, reason=reason)


def class_changes(own: ScoredImages, theirs: ScoredImages) -> tuple[ClassChange, ...]:
    """The classes of which fewer of the same images are right than with the baseline, the worst first."""
    changes = []
    for index, name in enumerate(own.classes):
        members = own.labels == index
        now, before = int(own.correct[members].sum()), int(theirs.correct[members].sum())
        if now < before:
            changes.append(
                ClassChange(name=name, images=int(members.sum()), baseline_correct=before, candidate_correct=now)
            )
    return tuple(sorted(changes, key=lambda change: change.candidate_correct - change.baseline_correct))


def _check_classes(root: Path, own: tuple[str, ...], theirs: tuple[str, ...]) -> None:
    if own == theirs:
        return
    only_own, only_theirs = sorted(set(own) - set(theirs)), sorted(set(theirs) - set(own))
    raise RunDirectoryError(
        f"{root} cannot be compared with: its student tells other classes apart than this run's; "
        f"only there: {', '.join(only_theirs) or 'none'}; only here: {', '.join(only_own) or 'none'}"
    )


def _predict_anew(baseline: RunDirectory, artefact: Artefact, directory: RunDirectory) -> StoredPredictions:
    # loads torch, which a gate does without
    from ecd_deploy.pipelines.gate.rerun import predict_anew

    return predict_anew(baseline, artefact, directory)
