"""Image files through a classifier: threads each decode a batch and let onnxruntime run it."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ecd_deploy.data.imagefolder.decode import BadImage, ImageHeader, read_headers, read_whole
from ecd_deploy.data.imagefolder.preflight import Findings
from ecd_deploy.data.imagefolder.progress import map_files
from ecd_deploy.errors import ArtefactError, DataError
from ecd_deploy.exporters.budget import COARSE_BATCH_SPREAD, FLOAT32_BUDGET
from ecd_deploy.files import sha256_file
from ecd_deploy.measure.latency.measurement import CPU
from ecd_deploy.pipelines.evaluate.classifier import SECONDS_OF_A_BATCH, Classifier
from ecd_deploy.pipelines.evaluate.images import LabelledFiles
from ecd_deploy.pipelines.evaluate.preprocessing import Preprocessing

_WAITING = 2  # batches beside those that are being decoded
_MOST_BYTES_AHEAD = 1_000_000_000
_COMPARED = 64  # images that are also scored alone and in another order
_FEW = 8
_BATCH_SPREAD = 1e-3  # in float32, of the largest score: for other batch sizes, other kernels round otherwise


@dataclass(frozen=True)
class Scored:
    """What a classifier gave, (N, outputs) as it came, for the files that could be used; and the files' digest."""

    files: LabelledFiles
    scores: NDArray[np.float32]
    skipped: int
    images_sha256: str


def usable_files(files: LabelledFiles, *, skip_bad: bool) -> LabelledFiles:
    """The files whose headers are those of images that can be used.

    Raises:
        DataError: some are not, and are not to be skipped, or none is left.
    """
    headers = read_headers(files.paths)
    findings = Findings.of(files.paths, headers)
    findings.report(files.paths, skip_bad=skip_bad)
    return files if not findings.bad else files.select(findings.good(len(files)))


def score(classifier: Classifier, files: LabelledFiles, *, skip_bad: bool = False) -> Scored:
    """Run all files through the classifier, in their order; what is kept of each image are its scores.

    Raises:
        DataError: an image cannot be used or has another size than the model, and is not to be skipped.
        ArtefactError: the model fails, or gives numbers that are not finite.
    """
    scores = np.empty((len(files), classifier.outputs), dtype=np.float32)
    digest = hashlib.sha256(_head(files))
    headers: list[ImageHeader | BadImage] = []
    done, check_headers = 0, not skip_bad
    with warnings.catch_warnings():
        # Pillow warns of files that are refused or counted anyway, without saying which
        warnings.simplefilter("ignore")
        for batch in _batches(classifier, files):
            headers += batch.headers
            if check_headers and len(batch.described) < len(batch.headers):
                usable_files(files, skip_bad=False)  # all that headers condemn are named now, not after the last batch
                check_headers = False
            for line in batch.described:
                digest.update(line)
            count = len(batch.described)
            scores[done : done + count] = batch.scores
            done += count
    findings = Findings.of(files.paths, headers)
    findings.report(files.paths, skip_bad=skip_bad)
    if findings.bad:
        files = files.select(findings.good(len(files)))
    _check_finite(classifier, files, scores[:done])
    return Scored(files, scores[:done], len(findings.bad), digest.hexdigest())


def check_batches(classifier: Classifier, found: Scored) -> None:
    """Refuse a model that gives an image other scores alone or beside other images than it was scored with.

    Raises:
        ArtefactError: it does.
    """
    preprocessing, fixed = classifier.expectation.preprocessing, classifier.expectation.batch
    if preprocessing.framed_by_model:
        return  # each image was alone in its batch, as images of several sizes must be
    count = min(len(found.files), max(2, _COMPARED // (fixed or 1)))
    places = np.linspace(0, len(found.files) - 1, count).astype(np.int64)
    images = preprocessing.apply(read_pixels(found.files, places.tolist(), preprocessing).pixels)
    expected, size = found.scores[places], fixed or max(_FEW, classifier.batch_size)
    coarse = classifier.file.budget != FLOAT32_BUDGET or classifier.provider != CPU
    limit = COARSE_BATCH_SPREAD if coarse else _BATCH_SPREAD
    scale = float(np.abs(expected).max()) or 1.0
    order = np.random.default_rng(0).permutation(len(places))
    alone = [np.array([place]) for place in range(len(places))]
    mixed = [order[start : start + size] for start in range(0, len(order), size)]
    for words, batches in (("alone", alone), ("beside other images", mixed)):
        spread = [np.abs(classifier.scores(images[chosen]) - expected[chosen]).max() / scale for chosen in batches]
        if not np.max(spread) <= limit:
            raise ArtefactError(
                f"{classifier.file.path.name} gives an image other scores {words} than in the batches of the "
                f"evaluation, off by {np.max(spread):.2g} of the largest: no accuracy of it would hold on a device"
            )


@dataclass(frozen=True)
class _Batch:
    """Scores of the images that could be used, a line about each for the digest, and what was found of each file."""

    scores: NDArray[np.float32]
    described: tuple[bytes, ...]
    headers: tuple[ImageHeader | BadImage, ...]


def _batches(classifier: Classifier, files: LabelledFiles) -> Iterator[_Batch]:
    """Batches in the files' order, a few of them at once.

    Raises:
        ArtefactError: one does not end.
    """
    preprocessing, size = classifier.expectation.preprocessing, classifier.batch_size
    float_bytes = 4 * size * preprocessing.decoded_channels * preprocessing.height * preprocessing.width
    most = max(_WAITING, min(classifier.threads + _WAITING, _MOST_BYTES_AHEAD // float_bytes))
    ahead: deque[Future[_Batch]] = deque()
    options = ort.RunOptions()
    with ThreadPoolExecutor(max_workers=classifier.threads) as pool:
        try:
            for start in range(0, len(files), size):
                if len(ahead) >= most:
                    yield ahead.popleft().result(SECONDS_OF_A_BATCH)
                places = range(start, min(start + size, len(files)))
                ahead.append(pool.submit(_score_batch, classifier, files, places, options))
            while ahead:
                yield ahead.popleft().result(SECONDS_OF_A_BATCH)
        except TimeoutError as error:
            name = classifier.file.path.name
            raise ArtefactError(f"{name} does not finish {size} image(s) within {SECONDS_OF_A_BATCH} s") from error
        finally:
            options.terminate = True  # whatever ended this ends the runs
            for future in ahead:
                future.cancel()


@dataclass(frozen=True)
class Pixels:
    """Decoded images (n, C, H, W) of those files that can be used, their lines, and what was found of each file."""

    pixels: NDArray[np.uint8]
    described: tuple[bytes, ...]
    headers: tuple[ImageHeader | BadImage, ...]


def read_pixels(files: LabelledFiles, places: Sequence[int], preprocessing: Preprocessing) -> Pixels:
    """Decode the files at these places and bring them to size; where the model does so, one place is read.

    Raises:
        DataError: one has another size than the model, and is not to be resized.
    """
    shape = (preprocessing.decoded_channels, preprocessing.height, preprocessing.width)
    pixels: list[NDArray[np.uint8]] = []
    described: list[bytes] = []
    headers: list[ImageHeader | BadImage] = []
    for place in places:
        found = read_whole(files.paths[place], shape[0], preprocessing.fit)
        if isinstance(found, BadImage):
            headers.append(found)
            continue
        if found.pixels.shape != shape and not preprocessing.framed_by_model:
            raise DataError(_other_size(files.paths[place], found.pixels.shape, preprocessing))
        headers.append(found.header)
        pixels.append(found.pixels)
        described.append(_described(files, place, found.sha256))
    stacked = np.stack(pixels) if pixels else np.empty((0, *shape), dtype=np.uint8)
    return Pixels(stacked, tuple(described), tuple(headers))


def _score_batch(classifier: Classifier, files: LabelledFiles, places: range, options: ort.RunOptions) -> _Batch:
    preprocessing = classifier.expectation.preprocessing
    found = read_pixels(files, places, preprocessing)
    scores = np.empty((0, classifier.outputs), dtype=np.float32)
    if found.described:
        scores = classifier.scores(preprocessing.apply(found.pixels), options)
    return _Batch(scores, found.described, found.headers)


def images_sha256(files: LabelledFiles) -> str:
    """The digest that `score` gives where all files can be used, without decoding them."""
    digest = hashlib.sha256(_head(files))
    for line in map_files(
        lambda place: _described(files, place, sha256_file(files.paths[place])), len(files), "reading images"
    ):
        digest.update(line)
    return digest.hexdigest()


def _head(files: LabelledFiles) -> bytes:
    return json.dumps(files.classes).encode()


def _described(files: LabelledFiles, place: int, content: str) -> bytes:
    values = [files.names[place], int(files.labels[place]), *(column.values[place] for column in files.slices)]
    return f"{content} {json.dumps(values)}\n".encode()


def _other_size(path: Path, shape: tuple[int, ...], preprocessing: Preprocessing) -> str:
    return (
        f"{path} is {shape[1]} x {shape[2]}, and the model takes {preprocessing.height} x {preprocessing.width} pixels "
        "(height x width): set input.resize to the side that the shorter side is scaled to before the middle is cut "
        "out, or to 'stretch'"
    )


def _check_finite(classifier: Classifier, files: LabelledFiles, scores: NDArray[np.float32]) -> None:
    wrong = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(wrong):
        raise ArtefactError(
            f"{classifier.file.path.name} gives numbers that are not finite for {len(wrong)} of {len(files)} images, "
            f"the first {files.paths[wrong[0]]}"
        )
