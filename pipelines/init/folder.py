"""What a folder of images holds, as far as a first recipe depends on it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np

from ecd_deploy.data.imagefolder.decode import ImageHeader, choose_channels, read_headers
from ecd_deploy.data.imagefolder.listing import Listing, Listings, list_root, list_split
from ecd_deploy.data.sources.tables import SPLITS
from ecd_deploy.errors import DataError

_MOST_HEADERS = 2000
_TEST_SHARE = 0.2
_LEAST_TO_CUT = 2
_UNEQUAL = 2.0  # images of the largest class for one of the smallest


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What was found below `train/`, `test/` and `val/`, or below the folders of the classes.

    Attributes:
        root: that holds them, as it was given.
        classes: their names.
        train_images: of each class, in the order of `classes`.
        test_images: likewise.
        has_validation: whether there is a folder of validation images.
        channels: 1 if all images that were looked at are grey, or else 3.
        width: in pixels, the median.
        height: likewise.
        one_size: whether all have it.
        unreadable: files that cannot be read, of those that were looked at.
        cut: the splits that were made of a folder which has none; None if it has.
    """

    root: Path
    classes: tuple[str, ...]
    train_images: tuple[int, ...]
    test_images: tuple[int, ...]
    has_validation: bool
    channels: int
    width: int
    height: int
    one_size: bool
    unreadable: int
    cut: Listings | None = None

    @property
    def images(self) -> int:
        """Training images of all classes."""
        return sum(self.train_images)

    @property
    def shorter_side(self) -> int:
        """In pixels, of the median image."""
        return min(self.width, self.height)

    @property
    def is_unequal(self) -> bool:
        """Whether the largest class has at least twice the training images of the smallest."""
        return max(self.train_images) >= _UNEQUAL * min(self.train_images)

    def words(self) -> str:
        """All of it, in one line."""
        least, most = min(self.train_images), max(self.train_images)
        each = f"{least} of each" if least == most else f"{least} to {most} of each"
        size = f"{self.width}x{self.height} pixels" + (" in the median" if not self.one_size else "")
        return (
            f"{self.images} training images of {len(self.classes)} classes, {each}; {sum(self.test_images)} test "
            f"images; {'grey' if self.channels == 1 else 'colour'}, {size}"
        )


def look_at(root: Path) -> ImageFacts:
    """List the images of a folder and read the headers of 2,000 of them at most; none is decoded.

    Of a folder of classes without splits, a fifth of each class is taken for the test.

    Raises:
        DataError: the folder cannot be a data set, or no image of it can be read.
    """
    has_splits = not root.is_dir() or any((root / name).is_dir() for name in SPLITS)
    listings = list_root(root) if has_splits else _cut(root)
    headers = read_headers(_spread(listings.train.files))
    usable = [header for header in headers if isinstance(header, ImageHeader)]
    if not usable:
        raise DataError(f"none of the files below {listings.train.folder} that were looked at is an image")
    sizes = {header.size for header in usable}
    return ImageFacts(
        root=root,
        classes=listings.train.classes,
        train_images=_by_class(listings.train),
        test_images=_by_class(listings.test),
        has_validation=listings.validation is not None,
        channels=choose_channels(usable),
        width=statistics.median_low(header.size[0] for header in usable),
        height=statistics.median_low(header.size[1] for header in usable),
        one_size=len(sizes) == 1,
        unreadable=len(headers) - len(usable),
        cut=None if has_splits else listings,
    )


def _cut(root: Path) -> Listings:
    """Cut test images off a folder of classes, a share of each; always the same ones."""
    whole = list_split(root)
    counts = _by_class(whole)
    if min(counts) < _LEAST_TO_CUT:
        name = whole.classes[counts.index(min(counts))]
        raise DataError(f"{root}: class {name} has one image only, and one each to train on and to test on is needed")
    is_test = np.zeros(len(whole.files), dtype=bool)
    draw = np.random.default_rng(0)
    for label, count in enumerate(counts):
        chosen = draw.permutation(count)[: max(1, round(_TEST_SHARE * count))]
        is_test[np.flatnonzero(whole.labels == label)[chosen]] = True
    train, test = (
        Listing(root, whole.classes, tuple(compress(whole.files, places)), whole.labels[places])
        for places in (~is_test, is_test)
    )
    return Listings(root, train, None, test)


def _spread(files: Sequence[Path]) -> list[Path]:
    """Some of them from all parts of the list, so from all classes."""
    return list(files[:: -(-len(files) // _MOST_HEADERS)])


def _by_class(listing: Listing) -> tuple[int, ...]:
    return tuple(np.bincount(listing.labels, minlength=len(listing.classes)).tolist())
