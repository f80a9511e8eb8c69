"""Limits on accuracy, each by a confidence bound."""

from __future__ import annotations

from ecd_deploy.measure.statistics import accuracy_lower_bound, drop_upper_bound
from ecd_deploy.pipelines.gate.check import Check, bounded, undecided
from ecd_deploy.pipelines.record.validation import Validation
from ecd_deploy.recipe.gate import GateConfig


def accuracy_checks(config: GateConfig, validation: Validation) -> list[Check]:
    """Check top-1 of the ONNX student, and what each artefact loses against the PyTorch student."""
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
