"""Step 4: parity of every artefact, and the accuracy of the ONNX student by onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from ecd_deploy.data import DataSplits, ImageSet, eval_batches
from ecd_deploy.errors import ArtefactError
from ecd_deploy.exporters import exporter_for
from ecd_deploy.measure.accuracy import PairedTop1, paired_top1
from ecd_deploy.measure.parity import Parity, compare_logits
from ecd_deploy.measure.prediction import Predictions, predict, torch_predictor
from ecd_deploy.models import build_student
from ecd_deploy.pipelines.export import ARTEFACTS_NAME, ArtefactList
from ecd_deploy.pipelines.run_directory import RunDirectory
from ecd_deploy.split import SplitStudent

VALIDATION_NAME = "validation.json"
_PARITY_IMAGES = 256
_BATCH_SIZE = 128


class ArtefactValidation(BaseModel):
    """One artefact against the PyTorch student."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str
    file: str
    sha256: str
    parity: Parity


class Validation(BaseModel):
    """Written to `validation.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    artefacts: tuple[ArtefactValidation, ...]
    onnx_top1: PairedTop1
    """The ONNX student by onnxruntime against the PyTorch student, on the whole test set."""


def validate(directory: RunDirectory, student: SplitStudent, data: DataSplits) -> Validation:
    """Compare every artefact with the student on real test images; count both on the whole test set.

    Raises:
        RunDirectoryError: nothing was exported yet.
        ArtefactError: an artefact was changed, belongs to another student or does not run.
    """
    exported = directory.read_json(ARTEFACTS_NAME, ArtefactList, made_by="export")
    if exported.student_digest != student.proof.student_digest:
        raise ArtefactError("the student was split anew after `export`: run `export` again")
    reference = predict(torch_predictor(student.module), _batches(data.test, data))
    entries = []
    onnx: Predictions | None = None
    for artefact in exported.artefacts:
        exporter = exporter_for(artefact.format, directory.recipe.export)
        content = directory.read(artefact.file)
        predictor = exporter.open(content, lambda: _plain_student(directory, data), threads=torch.get_num_threads())
        whole = artefact.format == "onnx"
        images = data.test if whole else _first(data.test, _PARITY_IMAGES)
        found = predict(predictor, _batches(images, data))
        onnx = found if whole else onnx
        parity = compare_logits(reference.logits[: len(images)], found.logits)
        entries.append(
            ArtefactValidation(format=artefact.format, file=artefact.file, sha256=artefact.sha256, parity=parity)
        )
    if onnx is None:
        raise ArtefactError("no ONNX artefact was exported, and accuracy is measured on it")
    result = Validation(artefacts=tuple(entries), onnx_top1=paired_top1(reference, onnx))
    directory.write_json(VALIDATION_NAME, result)
    return result


def _plain_student(directory: RunDirectory, data: DataSplits) -> nn.Module:
    name = directory.recipe.student.name
    return build_student(name, num_classes=len(data.classes), in_channels=data.in_channels)


def _first(images: ImageSet, count: int) -> ImageSet:
    return ImageSet(images.images[:count], images.labels[:count])


def _batches(images: ImageSet, data: DataSplits) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in eval_batches(images, data.normalisation, _BATCH_SIZE):
        yield batch.images, batch.labels
