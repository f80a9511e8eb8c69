"""Data sets that come as whole arrays: scikit-learn's digits and CIFAR through torchvision."""

from __future__ import annotations

import gzip
import importlib.util
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.data.images import ImageSet
from ecd_deploy.data.resize import Framing
from ecd_deploy.data.source import NamedImages, SourceImages
from ecd_deploy.data.subsets import balanced_subset
from ecd_deploy.errors import DataError, UsageError

_DIGITS_TEST_IMAGES = 500
_DIGITS_LEVELS = 16
_DIGITS_SPLIT_SEED = 0  # the data set has no split of its own: ours is the same for every run
_CIFAR_DEFAULT_FOLDER = "data"


class ArraySource:
    """A `Source` whose images are in memory already; `framing` None keeps them as they are."""

    def __init__(self, train: ImageSet, test: ImageSet, classes: tuple[str, ...], framing: Framing | None) -> None:
        self.classes = classes
        self.train_labels = train.labels
        self.test_labels = test.labels
        self._train = train
        self._test = test
        self._framing = framing

    def read(self, train: NDArray[np.int64], test: NDArray[np.int64]) -> SourceImages:
        """Return the images at these indices, resized if asked."""
        return SourceImages(
            train=NamedImages(self._fit(self._train.select(train)), _numbered("training image", train)),
            validation=None,
            test=NamedImages(self._fit(self._test.select(test)), _numbered("test image", test)),
        )

    def _fit(self, images: ImageSet) -> ImageSet:
        if self._framing is None:
            return images
        return ImageSet(self._framing.apply_all(images.images), images.labels)


def _numbered(what: str, indices: NDArray[np.int64]) -> tuple[str, ...]:
    return tuple(f"{what} {index}" for index in indices.tolist())


def open_digits(framing: Framing | None) -> ArraySource:
    """Open scikit-learn's 1,797 handwritten digits, 8x8 grey: 500 for testing, 50 of each class."""
    table = _digits_table()
    pixels = np.rint(table[:, :-1] * (255 / _DIGITS_LEVELS)).astype(np.uint8).reshape(-1, 1, 8, 8)
    whole = ImageSet(pixels, table[:, -1].astype(np.int64))
    test = balanced_subset(whole.labels, _DIGITS_TEST_IMAGES, seed=_DIGITS_SPLIT_SEED)
    train = np.setdiff1d(np.arange(len(whole)), test, assume_unique=True)
    classes = tuple("0123456789")
    return ArraySource(whole.select(train), whole.select(test), classes, framing)


def _digits_table() -> NDArray[np.float64]:
    """Rows of 64 grey levels, 0 to 16, and the digit, from the file that scikit-learn's `load_digits` reads.

    Not by that function: importing `sklearn.datasets` takes a second.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise UsageError("the digits come with scikit-learn, which is not installed: pip install 'ecd-deploy[train]'")
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        with gzip.open(file, "rt", encoding="ascii") as lines:
            return np.loadtxt(lines, delimiter=",")
    except OSError as error:
        raise DataError(f"cannot read scikit-learn's digits: {error}") from error


def open_cifar(name: Literal["cifar10", "cifar100"], path: str | None, framing: Framing | None) -> ArraySource:
    """Open CIFAR from `path` (default `data`), downloading it if it is not there.

    Raises:
        DataError: it cannot be downloaded, or the files are damaged.
    """
    try:
        from torchvision.datasets import CIFAR10, CIFAR100
    except ModuleNotFoundError as error:
        raise UsageError(
            f"CIFAR comes through torchvision, which is not installed: pip install 'ecd-deploy[train]' ({error})"
        ) from error
    dataset = CIFAR10 if name == "cifar10" else CIFAR100
    folder = Path(path or _CIFAR_DEFAULT_FOLDER)
    try:
        # numpy warns of how the pickles of 2009 name their types
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            train, test = (dataset(str(folder), train=is_train, download=True) for is_train in (True, False))
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise DataError(
            f"cannot download {name} to {folder} or read it from there: {error}. Check the connection, or fetch "
            f"{dataset.url} yourself and put the file into {folder} (data.path)"
        ) from error
    return ArraySource(_cifar_images(train), _cifar_images(test), tuple(train.classes), framing)


def _cifar_images(dataset: object) -> ImageSet:
    pixels = np.asarray(dataset.data, dtype=np.uint8)  # type: ignore[attr-defined]
    labels = np.array(dataset.targets, dtype=np.int64)  # type: ignore[attr-defined]
    return ImageSet(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), labels)
