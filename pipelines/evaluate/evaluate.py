"""`ecd-deploy evaluate`: the accuracy of any ONNX classifier on labelled images."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort

from ecd_deploy.data.imagefolder.listing import printable
from ecd_deploy.exporters.onnx.file import read_onnx_file
from ecd_deploy.files import sha256_bytes
from ecd_deploy.measure.scores.scored import ScoredImages
from ecd_deploy.pipelines.evaluate.alternatives import better_alternatives
from ecd_deploy.pipelines.evaluate.classifier import Classifier, open_classifier
from ecd_deploy.pipelines.evaluate.expectation import ClassesSource
from ecd_deploy.pipelines.evaluate.images import LabelledFiles, list_images, match_classes
from ecd_deploy.pipelines.evaluate.result import (
    EvaluatedImages,
    EvaluatedModel,
    Evaluation,
    ModelPart,
    check_output,
    class_accuracies,
    count_top5,
    probabilities_file,
    read_evaluation,
    to_probabilities,
    write_evaluation,
)
from ecd_deploy.pipelines.evaluate.stream import check_batches, images_sha256, score, usable_files
from ecd_deploy.pipelines.evaluate.target import Target
from ecd_deploy.recipe.input import InputConfig

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluated:
    """An evaluation with what its figures are computed from.

    Attributes:
        evaluation: the figures.
        scored: the probabilities of each image.
        files: the images, in the same order.
        classifier: the model, still open.
    """

    evaluation: Evaluation
    scored: ScoredImages
    files: LabelledFiles
    classifier: Classifier


def evaluate(
    model: str | PathLike[str],
    data: str | PathLike[str],
    config: InputConfig | None = None,
    *,
    out: str | PathLike[str] | None = None,
    skip_bad: bool = False,
    provider: str | None = None,
) -> Evaluated:
    """Evaluate an ONNX classifier of any origin on labelled images, with onnxruntime on all cores.

    Args:
        model: the file.
        data: a folder that holds `CLASS/*.jpg`, or a CSV or Parquet file with the columns path and label; of a
            column split only the test images count, and other columns are slices.
        config: what the model expects, where its own metadata do not say so.
        out: folder for the results; None writes nothing.
        skip_bad: leave out images that cannot be read, instead of refusing them.
        provider: onnxruntime's, `NAME` or `NAME:key=value,...`; None for the CPU.

    Raises:
        UsageError: a file is absent, or what the model expects is not known.
        ArtefactError: the model or an image cannot be used.
    """
    folder = None if out is None else Path(out)
    if folder is not None:
        check_output(folder)
    target, files = Target(read_onnx_file(Path(model))), list_images(Path(data))
    found = evaluate_files(target, files, config or InputConfig(), skip_bad=skip_bad, provider=provider)
    if folder is not None:
        write_evaluation(folder, found.evaluation, found.files.names, found.scored)
    return found


def evaluate_files(
    target: Target,
    files: LabelledFiles,
    config: InputConfig,
    *,
    skip_bad: bool = False,
    provider: str | None = None,
    batch_size: int | None = None,
    reuse: Path | None = None,
) -> Evaluated:
    """Evaluate a model that was read on images that were listed; see `evaluate`.

    What the folder `reuse` holds is taken instead if it is of the same model, images, preprocessing and onnxruntime, by
    their digests, and of the same batch size. `batch_size` is the most images at once.
    """
    file, expectation = target.file, target.expectation(config)
    classifier = open_classifier(file, expectation, provider, most=batch_size or len(files))
    matched = match_classes(files, expectation.classes, classifier.outputs, file.path.name)
    if reuse is not None and (found := _stored(reuse, classifier, matched, skip_bad=skip_bad)) is not None:
        return found
    return _evaluated(classifier, matched, files, skip_bad=skip_bad)


def _stored(folder: Path, classifier: Classifier, matched: LabelledFiles, *, skip_bad: bool) -> Evaluated | None:
    if (stored := read_evaluation(folder)) is None:
        return None
    files = usable_files(matched, skip_bad=skip_bad)
    evaluation, probabilities = stored
    given = classifier.expectation
    same = (
        evaluation.model.sha256 == classifier.file.sha256
        and evaluation.model.output == given.output
        and given.scores in (None, evaluation.model.scores)
        and evaluation.preprocessing == given.preprocessing
        and evaluation.onnxruntime == ort.__version__
        and evaluation.provider == classifier.provider
        and evaluation.batch_size == classifier.batch_size
        and evaluation.images.sha256 == images_sha256(files)
        and probabilities.shape == (len(files), len(files.classes))
        and probabilities.dtype == np.float32
    )
    if not same:
        return None
    _logger.warning("the evaluation in %s is of the same model, images and preprocessing: it is used again", folder)
    return Evaluated(
        evaluation, ScoredImages(probabilities, files.labels, files.classes, files.slices), files, classifier
    )


def _classes_from(classifier: Classifier, classes: tuple[str, ...]) -> ClassesSource | Literal["the images' numbers"]:
    known = classifier.expectation.classes_from
    numbers = tuple(map(str, range(classifier.outputs)))
    return "the images' numbers" if known == "the images" and classes == numbers else known


def _evaluated(classifier: Classifier, matched: LabelledFiles, listed: LabelledFiles, *, skip_bad: bool) -> Evaluated:
    file, expectation = classifier.file, classifier.expectation
    found = score(classifier, matched, skip_bad=skip_bad)
    check_batches(classifier, found)
    probabilities, kind = to_probabilities(found.scores, expectation.scores, file.path.name)
    scored = ScoredImages(probabilities, found.files.labels, found.files.classes, found.files.slices)
    warnings: tuple[str, ...] = ()
    if expectation.source == "[input]":
        warnings = better_alternatives(classifier, found.files, scored.correct)
    evaluation = Evaluation(
        model=EvaluatedModel(
            file=file.path.name,
            sha256=file.sha256,
            bytes=len(file.data),
            output=expectation.output,
            scores=kind,
            parts=tuple(ModelPart(file=printable(part.name), sha256=part.sha256) for part in file.parts),
        ),
        images=EvaluatedImages(
            source=listed.source.name,
            sha256=found.images_sha256,
            images=len(scored),
            skipped=len(listed) - len(scored),
        ),
        preprocessing=expectation.preprocessing,
        preprocessing_from=expectation.source,
        preprocessing_sha256=expectation.preprocessing.sha256,
        classes_from=_classes_from(classifier, scored.classes),
        onnxruntime=ort.__version__,
        provider=classifier.provider,
        batch_size=classifier.batch_size,
        probabilities_sha256=sha256_bytes(probabilities_file(scored)),
        correct=int(scored.correct.sum()),
        correct_top5=count_top5(scored),
        classes=class_accuracies(scored),
        mean_confidence=float(np.mean(scored.probabilities.max(axis=1))),
        warnings=warnings,
    )
    return Evaluated(evaluation, scored, found.files, classifier)
