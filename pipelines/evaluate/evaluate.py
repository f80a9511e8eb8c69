"""`ecd-deploy evaluate`: the accuracy of any ONNX classifier on labelled images."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from ecd_deploy.files import sha256_bytes
from ecd_deploy.measure.scored import ScoredImages
from ecd_deploy.pipelines.evaluate.alternatives import better_alternatives
from ecd_deploy.pipelines.evaluate.classifier import Classifier, open_classifier
from ecd_deploy.pipelines.evaluate.files import check_output, probabilities_file, write_evaluation
from ecd_deploy.pipelines.evaluate.images import LabelledFiles, list_images, match_classes
from ecd_deploy.pipelines.evaluate.model import OnnxFile, expect, read_onnx_file
from ecd_deploy.pipelines.evaluate.result import (
    EvaluatedImages,
    EvaluatedModel,
    Evaluation,
    class_accuracies,
    count_top5,
    to_probabilities,
)
from ecd_deploy.pipelines.evaluate.stream import score, usable_files
from ecd_deploy.recipe.input import InputConfig


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
    model: Path, data: Path, config: InputConfig, *, out: Path | None = None, skip_bad: bool = False
) -> Evaluated:
    """Evaluate an ONNX classifier of any origin on labelled images, with onnxruntime on all cores.

    Args:
        model: the file.
        data: a folder that holds `CLASS/*.jpg`, or a CSV file with the columns path and label; others are slices.
        config: what the model expects, where its own metadata do not say so.
        out: folder for the results; None writes nothing.
        skip_bad: leave out images that cannot be read, instead of refusing them.

    Raises:
        UsageError: a file is absent, or what the model expects is not known.
        ArtefactError: the model or an image cannot be used.
    """
    if out is not None:
        check_output(out)
    file = read_onnx_file(model)
    files = list_images(data)
    found = evaluate_files(file, files, config, skip_bad=skip_bad)
    if out is not None:
        write_evaluation(out, found.evaluation, found.files.names, found.scored)
    return found


def evaluate_files(file: OnnxFile, files: LabelledFiles, config: InputConfig, *, skip_bad: bool = False) -> Evaluated:
    """Evaluate a model that was read on images that were listed; see `evaluate`."""
    expectation = expect(file, config)
    with ThreadPoolExecutor(max_workers=1) as pool:  # the model is tried in another process meanwhile
        opening = pool.submit(open_classifier, file, expectation)
        usable = usable_files(files, skip_bad=skip_bad)
        classifier = opening.result()
    matched = match_classes(usable, expectation.classes, classifier.outputs, file.path.name)
    found = score(classifier, matched, skip_bad=skip_bad)
    probabilities, kind = to_probabilities(found.scores, expectation.scores, file.path.name)
    scored = ScoredImages(probabilities, found.files.labels, found.files.classes, found.files.slices)
    given = expectation.source == "[input]"
    chosen_by = {True: "the model's metadata", False: "input.classes"}[file.metadata is not None]
    evaluation = Evaluation(
        model=EvaluatedModel(
            file=file.path.name, sha256=file.sha256, bytes=len(file.data), output=expectation.output, scores=kind
        ),
        images=EvaluatedImages(
            source=files.source.name,
            sha256=found.images_sha256,
            images=len(scored),
            skipped=len(files) - len(scored),
        ),
        preprocessing=expectation.preprocessing,
        preprocessing_from=expectation.source,
        preprocessing_sha256=expectation.preprocessing.sha256,
        classes_from="the images" if expectation.classes is None else chosen_by,
        onnxruntime=ort.__version__,
        provider=classifier.session.get_providers()[0],
        batch_size=classifier.batch_size,
        probabilities_sha256=sha256_bytes(probabilities_file(scored)),
        correct=int(scored.correct.sum()),
        correct_top5=count_top5(scored),
        classes=class_accuracies(scored),
        mean_confidence=float(np.mean(scored.probabilities.max(axis=1))),
        warnings=better_alternatives(classifier, found.files, scored.correct) if given else (),
    )
    return Evaluated(evaluation, scored, found.files, classifier)
