"""Limits on accuracy, of all test images, of single classes and of slices, each by a confidence bound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ecd_deploy.measure.scores.classification import correct_by_class, images_by_class
from ecd_deploy.measure.scores.drops import PAIRED, PAIRED_OF_CLASS, Pair, paired_drop
from ecd_deploy.measure.scores.estimates import OWN, OWN_OF_CLASS, Estimate
from ecd_deploy.measure.scores.scored import ScoredImages
from ecd_deploy.pipelines.gate.check import Check, Verdict, judge, undecided
from ecd_deploy.pipelines.record.validation import Validation
from ecd_deploy.recipe.gate import GateConfig

_NAMES_SHOWN = 10
_DEFAULT_DROP = 0.01
_NO_BASELINE = "no baseline was given"


@dataclass(frozen=True)
class Scores:
    """What a gate of accuracy looks at.

    Attributes:
        images: with the candidate's probabilities.
        baseline: the same images in the same order with the baseline's; None without one.
    """

    images: ScoredImages
    baseline: ScoredImages | None = None

    def part(self, members: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Scores:
        """Some of the images."""
        return Scores(self.images.part(members), None if self.baseline is None else self.baseline.part(members))


def accuracy_checks(config: GateConfig, scores: Scores) -> list[Check]:
    """Check every limit on accuracy that is set, and warn of classes that are never recognised.

    Raises:
        RecipeError: a limit is for a class, a column or a value that there is none of.
    """
    images = scores.images
    config.check_names(images.classes, {column.name: tuple(sorted(set(column.values))) for column in images.slices})
    limits = config.set_limits()
    if scores.baseline is not None:
        limits.setdefault("max_baseline_drop", _DEFAULT_DROP)
    return [
        *_checks("", limits, scores, config.confidence),
        *_class_checks(config, scores),
        *_slice_checks(config, scores),
        *_warnings(config, images),
    ]


def drop_checks(config: GateConfig, validation: Validation) -> list[Check]:
    """Check what each artefact loses against the PyTorch student, on the same images."""
    if config.max_drop is None:
        return []
    pairs = {entry.format: entry.top1 for entry in validation.artefacts if entry.format != "onnx"}
    found = {"max_drop": validation.onnx_top1} | {f"max_drop {name}": pair for name, pair in pairs.items() if pair}
    return [
        judge(
            name,
            paired_drop(pair.lost, pair.gained, pair.reference.images, config.confidence),
            config.max_drop,
            at_least=False,
        )
        for name, pair in found.items()
    ]


def _checks(path: str, limits: Mapping[str, float], scores: Scores, confidence: float) -> Iterator[Check]:
    for name, limit in limits.items():
        if name in OWN:
            yield _judged(path + name, OWN[name](scores.images, confidence), limit)
        elif scores.baseline is None:
            yield undecided(path + name, limit, "", _NO_BASELINE)
        else:
            yield _judged(path + name, PAIRED[name](Pair(scores.images, scores.baseline), confidence), limit)


def _class_checks(config: GateConfig, scores: Scores) -> Iterator[Check]:
    for name, limits in config.classes.items():
        index = scores.images.classes.index(name)
        for key, limit in limits:
            path = f"classes.{name}.{key}"
            if limit is None:
                continue
            if key in OWN_OF_CLASS:
                yield _judged(path, OWN_OF_CLASS[key](scores.images, index, config.confidence), limit)
            elif scores.baseline is None:
                yield undecided(path, limit, "", _NO_BASELINE)
            else:
                pair = Pair(scores.images, scores.baseline)
                yield _judged(path, PAIRED_OF_CLASS[key](pair, index, config.confidence), limit)


def _slice_checks(config: GateConfig, scores: Scores) -> Iterator[Check]:
    columns = {column.name: np.array(column.values) for column in scores.images.slices}
    for name, limits in config.slices.items():
        for value in sorted(set(columns[name].tolist())):
            own = limits.by_value[value].set_limits() if value in limits.by_value else {}
            part = scores.part(columns[name] == value)
            yield from _checks(f"slices.{name}.{value}.", limits.set_limits() | own, part, config.confidence)


def _warnings(config: GateConfig, images: ScoredImages) -> Iterator[Check]:
    """A class of which no image is right, unless a limit decides about it."""
    counts = zip(images.classes, images_by_class(images), correct_by_class(images), strict=True)
    decided = {name for name, limits in config.classes.items() if limits.min_recall is not None}
    never = [name for name, of_class, right in counts if of_class and not right and name not in decided]
    if not never or config.min_class_recall is not None:
        return
    shown = ", ".join(never[:_NAMES_SHOWN]) + (f" and {len(never) - _NAMES_SHOWN} more" * (len(never) > _NAMES_SHOWN))
    yield Check(
        name="classes never right",
        value=float(len(never)),
        bound=None,
        limit=None,
        unit="",
        verdict=Verdict.WARNING,
        reason=f"{shown}: no image is classified correctly, and no limit on recall is set",
    )


def _judged(name: str, estimate: Estimate, limit: float) -> Check:
    return judge(name, estimate, limit, at_least=name.rpartition(".")[2].startswith("min_"))
