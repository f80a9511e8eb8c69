"""Results in words, alike in the terminal, the report and the tables of a study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from ecd_deploy.recipe.train import Select
from ecd_deploy.split import ConstructionResult, GraphResult, SplitProof

if TYPE_CHECKING:
    from ecd_deploy.pipelines.record.validation import Validation
    from ecd_deploy.training import TrainingResult

NO_VALIDATION: Final = (
    "all training images were used for training (data.validation_fraction is 0), so no epoch has a validation accuracy "
    "and there is no best epoch"
)


DEPLOYED_EPOCH: Final[Mapping[Select, str]] = {
    "best": "best epoch",
    "balanced_accuracy": "epoch with the best balanced accuracy",
    "last": "last epoch",
}
"""Which epoch's weights are deployed, by `train.select`."""


def describe_training(training: TrainingResult, select: Select) -> str:
    """The validation accuracy of the last and of the best epoch, or why there is none."""
    last, best = training.last, training.best
    if best is None or last.validation_top1 is None or best.validation_top1 is None:
        return f"no validation top-1: {NO_VALIDATION}"
    text = f"validation top-1: last {last.validation_top1:.2%}, best {best.validation_top1:.2%} (epoch {best.epoch})"
    balanced = (last.validation_balanced_accuracy, best.validation_balanced_accuracy)
    if select != "balanced_accuracy" or balanced[0] is None or balanced[1] is None:
        return text
    return f"{text}; balanced accuracy, by which it is the best: last {balanced[0]:.2%}, best {balanced[1]:.2%}"


def describe_overlap(validation: Validation) -> str:
    """How many test images the run has seen before the test."""
    count, images = validation.overlapping_test_images, validation.onnx_top1.candidate.images
    if not count:
        return "None of the test images is a training or validation image too, pixel by pixel"
    return (
        f"{count} of the {images} test images are training or validation images too, pixel by pixel: accuracy on these "
        "says nothing about new images"
    )


def format_number(value: float | None, unit: str = "") -> str:
    """Four significant digits with the unit; a dash where there is no value."""
    return "-" if value is None else f"{value:.4g} {unit}".rstrip()


def describe_proof(proof: SplitProof) -> tuple[tuple[str, str], ...]:
    """Name each check and say what was compared."""
    checks, train_mode = proof.checks, proof.checks.train_mode
    references, storage = proof.checks.references, proof.checks.storage
    dataflow, perturbation, copied = proof.checks.dataflow, proof.checks.perturbation, proof.checks.copied
    visited = (
        f"{references.objects_visited} objects reached from the student; among them none of the "
        f"{references.modules_sought} modules and {references.tensors_sought} tensors that stay behind"
    )
    memory = f"{storage.student_tensors} tensors of the student share no memory with {storage.auxiliary_tensors} others"
    graph = (
        f"{dataflow.nodes} autograd nodes lead from the logits to the student's {len(dataflow.reached)} parameters "
        f"and to none of {dataflow.auxiliary_parameters} others"
    )
    poisoned = (
        f"{perturbation.logits_compared} logits are bit-identical with {perturbation.poisoned_tensors} tensors on the "
        "teacher's side NaN, random or deleted"
        + ("; the joint forward cannot run on NaN" if perturbation.nan_refused else "")
    )
    trained = (
        f"{train_mode.buffers_compared} buffers and {train_mode.gradients_compared} gradients are bit-identical in "
        f"{train_mode.conditions} joint steps, one with a random teacher"
    )
    return (
        ("made", f"{proof.method}, {checks.total - len(checks.not_done)} of {checks.total} checks done"),
        ("construction", _constructed(checks.construction)),
        ("references", visited),
        ("hooks", f"none on the student's {proof.checks.hooks.modules} modules"),
        ("storage", memory),
        ("values", f"none of {checks.values.auxiliary_values} tensors and slices that stay behind is repeated"),
        ("dataflow", graph),
        ("graph", _exported(checks.graph)),
        ("perturbation", poisoned),
        ("train mode", trained),
        ("copy", f"{copied.tensors_compared} tensors and {copied.logits_compared} logits equal the original's"),
    )


def _constructed(construction: ConstructionResult) -> str:
    if construction.not_done_reason is not None:
        return f"not done: {construction.not_done_reason}"
    text = f"a fresh build with {construction.tensors_compared} tensors took over the trained values"
    others = ", ".join(construction.own_values)
    return f"{text}; untrained, yet not as in a fresh build: {others}" if others else text


def _exported(graph: GraphResult) -> str:
    if graph.not_done_reason is not None:
        return f"not done: {graph.not_done_reason}"
    text = (
        f"{graph.nodes} nodes of the torch.export graph lead to {len(graph.reached)} tensors of the student and to "
        f"none of {graph.auxiliary_tensors} others; the student that leaves has the same graph, with "
        f"{graph.numbers} different numbers in it"
    )
    return f"{text}; unused, and listed as such: {', '.join(graph.unused)}" if graph.unused else text
