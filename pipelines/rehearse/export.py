"""Every format of the recipe, written once from the untrained student and compared with it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ecd_deploy.compat.torch import value_read
from ecd_deploy.data import DataSplits
from ecd_deploy.distill.student.locate import described
from ecd_deploy.errors import ExportError, StudentError
from ecd_deploy.exporters import ExportContext, Written, export_formats
from ecd_deploy.exporters.onnx.provider import open_artefact
from ecd_deploy.exporters.reason import DATA_DEPENDENT, first_cause
from ecd_deploy.measure.predictors.torch_predictor import torch_predictor
from ecd_deploy.measure.scores.parity import compare_logits
from ecd_deploy.pipelines.rehearse.result import Part
from ecd_deploy.pipelines.steps.export import artefact_metadata
from ecd_deploy.pipelines.steps.train import student_factory
from ecd_deploy.pipelines.steps.validate import batch_limit
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.split import SplitStudent
from ecd_deploy.split.checks.batch import batch_spread

_FAR_OFF = 1e-3
"""Of a logit, as a share of the largest: the logits of untrained weights may be of any size."""


def rehearse_formats(recipe: Recipe, student: SplitStudent, data: DataSplits, images: Tensor) -> Iterator[Part]:
    """Write each format, open it and compare it with the student; yields its seconds.

    Formats are calibrated on a few images, and what that costs in accuracy is not looked at: the weights are untrained.

    Args:
        recipe: of the run.
        student: split off untrained.
        data: of the run, of which a few training images are used.
        images: normalised, (N, C, H, W).

    Raises:
        StudentError: naming the format that cannot hold the student, or that gives other logits.
    """
    count = len(images)
    few = data.train.first(count)
    context = ExportContext(few, None, data.normalisation, seed=recipe.seed)
    int8 = recipe.export.int8.model_copy(update={"count": count, "max_drop": None})
    config = recipe.export.model_copy(update={"int8": int8})
    written = export_formats(recipe.export.formats, config, student, artefact_metadata(recipe, student, data), context)
    for name in recipe.export.formats:
        begun = time.perf_counter()
        try:
            artefact = next(written)
            _compare(artefact, student, images, recipe, data)
        except ExportError as error:
            raise StudentError(
                f"format {name} cannot hold the student: {_cause(error, student.module, images)}\n{_way_out(name)}"
            ) from error
        yield Part(name=f"export {name}", seconds=time.perf_counter() - begun)


def _cause(error: ExportError, student: nn.Module, images: Tensor) -> str:
    cause = first_cause(error)
    if cause == DATA_DEPENDENT and (read := value_read(student, images)) is not None:
        return f"{described(student, read.module)}: {cause}"
    return cause


def _way_out(name: str) -> str:
    if name == "onnx":
        return "Change that in the student: accuracy and latency are measured on onnx, and no run is without it."
    return "Change that in the student, or leave the format out of export.formats if another one will do."


def _compare(written: Written, student: SplitStudent, images: Tensor, recipe: Recipe, data: DataSplits) -> None:
    exporter = written.exporter
    opened = open_artefact(
        exporter,
        written.data,
        student_factory(recipe, data),
        provider=recipe.profile.provider,
    )
    predictor = opened.predictor
    expected = torch_predictor(student.module)(images.numpy())
    parity = compare_logits(expected, predictor(images.numpy()))
    if (problem := parity.problem()) is not None:
        raise ExportError(f"its file gives other logits than the student: {problem}")
    if exporter.budget is None and (parity.relative_diff or 0.0) > _FAR_OFF:
        raise ExportError(
            f"its file gives other logits than the student, off by {parity.relative_diff:.2g} of the largest: a value "
            "that depends on the images, as a branch taken by one of them does, was written as a constant"
        )
    spread = batch_spread(lambda chosen: torch.from_numpy(predictor(chosen.numpy())), images)
    if spread.largest > batch_limit(exporter.budget, opened):
        raise ExportError(
            f"its file gives an image other logits {spread.worst} than in a batch of {len(images)}, off by "
            f"{spread.largest:.2g} of the largest"
        )
