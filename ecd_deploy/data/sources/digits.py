"""Scikit-learn's handwritten digits."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.data.images import ImageSet
from ecd_deploy.data.resize import Framing
from ecd_deploy.data.sources.arrays import ArraySource
from ecd_deploy.data.subsets import balanced_subset
from ecd_deploy.errors import DataError, UsageError

_TEST_IMAGES = 500
_LEVELS = 16
_SPLIT_SEED = 0  # the data set has no split of its own: ours is the same for every run


def open_digits(framing: Framing | None) -> ArraySource:
    """Open scikit-learn's 1,797 handwritten digits, 8x8 grey: 500 for testing, 50 of each class."""
    table = _digits_table()
    pixels = np.rint(table[:, :-1] * (255 / _LEVELS)).astype(np.uint8).reshape(-1, 1, 8, 8)
    whole = ImageSet(pixels, table[:, -1].astype(np.int64))
    test = balanced_subset(whole.labels, _TEST_IMAGES, seed=_SPLIT_SEED)
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
