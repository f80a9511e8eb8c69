"""`ecd-deploy predict`: the classes of single images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np

from ecd_deploy.data.imagefolder.decode import ImageHeader, read_headers
from ecd_deploy.errors import DataError
from ecd_deploy.pipelines.evaluate.classifier import open_classifier
from ecd_deploy.pipelines.evaluate.images import LabelledFiles
from ecd_deploy.pipelines.evaluate.preprocessing import Preprocessing
from ecd_deploy.pipelines.evaluate.result import to_probabilities
from ecd_deploy.pipelines.evaluate.stream import score
from ecd_deploy.pipelines.evaluate.target import read_target
from ecd_deploy.recipe.input import InputConfig
from ecd_deploy.records import Record

_logger = logging.getLogger(__name__)


class RankedClass(Record):
    """A class and its probability."""

    name: str
    probability: float


class Prediction(Record):
    """The most probable classes of an image, the first ones first."""

    image: str
    classes: tuple[RankedClass, ...]


def predict(
    model: str | PathLike[str],
    images: Sequence[str | PathLike[str]],
    config: InputConfig | None = None,
    *,
    top: int = 5,
) -> tuple[Prediction, ...]:
    """Classify images of any size.

    Where neither the model nor `config` says how images are brought to size, the shorter side is scaled and the middle
    cut out, with a warning.

    Args:
        model: an ONNX file, a run directory, or a bundle, packed or not.
        images: the files.
        config: what the model expects, where its own metadata do not say so.
        top: how many classes of each image.

    Raises:
        UsageError: a file is absent, or what the model expects is not known.
        ArtefactError: the model or an image cannot be used.
    """
    target = read_target(Path(model))
    file, expectation = target.file, target.expectation(config or InputConfig())
    listed = LabelledFiles(
        source=Path(),
        names=tuple(str(image) for image in images),
        paths=tuple(map(Path, images)),
        classes=(),
        labels=np.zeros(len(images), dtype=np.int64),
    )
    sized = _with_resize(expectation.preprocessing, listed.paths)
    classifier = open_classifier(file, replace(expectation, preprocessing=sized), most=len(listed))
    found = score(classifier, listed)
    probabilities, _ = to_probabilities(found.scores, expectation.scores, file.path.name)
    names = expectation.classes or tuple(map(str, range(classifier.outputs)))
    if len(names) != classifier.outputs:
        raise DataError(f"{file.path.name} has {classifier.outputs} outputs, and {len(names)} classes are named for it")
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return tuple(
        Prediction(
            image=name,
            classes=tuple(RankedClass(name=names[place], probability=float(row[place])) for place in places),
        )
        for name, row, places in zip(listed.names, probabilities, order.tolist(), strict=True)
    )


def _with_resize(given: Preprocessing, paths: Sequence[Path]) -> Preprocessing:
    """Bring images to size in the usual way where nothing is said of it and one of them has another size."""
    if given.resize is not None:
        return given
    sizes = [header.size for header in read_headers(paths) if isinstance(header, ImageHeader)]
    other = next((size for size in sizes if size != (given.width, given.height)), None)
    if other is None:
        return given
    sized = given.model_copy(update={"resize": given.height if given.height == given.width else "stretch"})
    _logger.warning(
        "images of other sizes, such as %d x %d, are brought to the model's, of which nothing says how: %s",
        *other[::-1],
        sized.words().partition(";")[0],
    )
    return sized
