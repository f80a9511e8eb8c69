"""`ecd-deploy bundle MODEL.onnx --data`: a model of any origin with images that check it on a device."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np

from ecd_deploy.errors import ArtefactError, UsageError
from ecd_deploy.exporters.onnx.file import read_onnx_file
from ecd_deploy.files import sha256_bytes
from ecd_deploy.measure.predictors.untrusted import is_ort
from ecd_deploy.pipelines.bundle.archive import SUFFIX, Bundle, CheckedSamples, archive_path, write_bundle
from ecd_deploy.pipelines.bundle.description import BundleDescription, largest_drop, latency_conditions
from ecd_deploy.pipelines.evaluate.evaluate import evaluate_files
from ecd_deploy.pipelines.evaluate.images import list_images
from ecd_deploy.pipelines.evaluate.stream import read_pixels
from ecd_deploy.pipelines.evaluate.target import Target
from ecd_deploy.pipelines.steps.samples import choose_places
from ecd_deploy.recipe.input import ModelConfig

_CLEAR_MARGIN: Final = 0.02  # of probability


def bundle_model(
    model: Path, data: Path, config: ModelConfig, output: Path | None = None, *, skip_bad: bool = False
) -> Bundle:
    """Evaluate a model and pack it with what it gave for some of the images; the same call gives the same bytes.

    Args:
        model: an ONNX or .ort file.
        data: labelled images; see `evaluate`.
        config: what the model expects, limits of latency, and how it is measured.
        output: of the archive; by default NAME.tar.gz in the working directory.
        skip_bad: leave out images that cannot be read.

    Raises:
        UsageError: a file is absent or there already, or what the model expects is not known.
        ArtefactError: the model or an image cannot be used, or no image is clearly of one class.
    """
    path = archive_path(output or Path(f"{model.stem}{SUFFIX}"))
    if config.gate.max_drop is not None:
        raise UsageError("gate.max_drop compares with the PyTorch student, which a file has none of: remove it")
    found = evaluate_files(Target(read_onnx_file(model)), list_images(data), config.input, skip_bad=skip_bad)
    classifier, evaluation = found.classifier, found.evaluation
    preprocessing, batch = evaluation.preprocessing, classifier.expectation.batch
    if preprocessing.framed_by_model:
        raise UsageError(f"{model.name} was written by this project: bundle its run directory")
    image_bytes = preprocessing.decoded_channels * preprocessing.height * preprocessing.width
    places = choose_places(found.scored.probabilities, found.scored.labels, _CLEAR_MARGIN, image_bytes)
    if not len(places):
        raise ArtefactError(f"no bundle: {model.name} gives two classes nearly the same probability on every image")
    pixels = read_pixels(found.files, places.tolist(), preprocessing).pixels
    images, size = preprocessing.apply(pixels), classifier.batch_size
    scores = np.concatenate([classifier.scores(images[at : at + size]) for at in range(0, len(images), size)])
    labels, budget = found.scored.labels[places], classifier.file.budget
    kind = "ort" if is_ort(classifier.data) else "onnx"
    description = BundleDescription(
        name=path.name.removesuffix(SUFFIX),
        student=None,
        format=kind,
        # onnxruntime tells its own format by the name of the file.
        model=model.name if (kind == "ort") == (model.suffix == ".ort") else f"{model.stem}.{kind}",
        model_sha256=sha256_bytes(classifier.data),
        student_digest=None,
        recipe_digest=None,
        onnxruntime=version("onnxruntime"),
        test_images=len(found.scored),
        test_top1=evaluation.top1,
        input=classifier.expectation.input,
        output=classifier.expectation.output,
        scores=evaluation.model.scores,
        preprocessing=preprocessing,
        batch=batch,
        max_difference=budget.relative * float(np.abs(scores).max()),
        min_same_class=budget.agreement,
        samples_correct=int((scores.argmax(axis=1) == labels).sum()),
        max_drop=largest_drop(config.gate),
        latency=latency_conditions(config.profile.model_copy(update={"batch_size": batch or 1}), config.gate),
    )
    checked = CheckedSamples(pixels, labels, scores)
    return write_bundle(path, description, classifier.data, checked, found.scored.classes)
