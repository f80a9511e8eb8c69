"""A source of image files, wherever they are listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.data.imagefolder.cache import open_decoded
from ecd_deploy.data.imagefolder.checked import open_checked
from ecd_deploy.data.imagefolder.listing import Listing, Listings, printable
from ecd_deploy.data.imagefolder.preflight import Findings
from ecd_deploy.data.images import ImageFiles, ImageSet
from ecd_deploy.data.overlap import Fingerprints
from ecd_deploy.data.resize import Framing
from ecd_deploy.data.sources.contract import NamedImages, SourceImages
from ecd_deploy.errors import DataError


@dataclass(frozen=True)
class CheckedSplit:
    """The files of one split that can be used, and what tells their pixels apart."""

    files: ImageFiles
    fingerprints: Fingerprints
    columns: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class CheckedSplits:
    """The files of all splits; validation is None if there is no folder of it."""

    train: CheckedSplit
    validation: CheckedSplit | None
    test: CheckedSplit


@dataclass(frozen=True)
class _Chosen:
    """Files of one split that were chosen, bad ones included; labels int64, (N,)."""

    files: tuple[Path, ...]
    labels: NDArray[np.int64]
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, listing: Listing, indices: NDArray[np.int64]) -> _Chosen:
        files = tuple(listing.files[index] for index in indices.tolist())
        return cls(files, listing.labels[indices], _at(listing.columns, indices))


class FileSource:
    """A `Source` of image files.

    Args:
        listings: the files of each split, all of the same classes.
        framing: brings images to one size; None if all have one.
        cache_folder: where decoded images are kept.
        skip_bad: leave images out that cannot be used.
    """

    def __init__(
        self,
        listings: Listings,
        framing: Framing | None,
        *,
        cache_folder: Path,
        skip_bad: bool = False,
    ) -> None:
        self._listings = listings
        self.has_validation = listings.validation is not None
        self.classes = self._listings.train.classes
        self.train_labels = self._listings.train.labels
        self.test_labels = self._listings.test.labels
        self._root = listings.root
        self._framing = framing
        self._cache_folder = cache_folder
        self._skip_bad = skip_bad

    def read(self, train: NDArray[np.int64], test: NDArray[np.int64]) -> SourceImages:
        """Decode the files at these indices, and all validation files, into one shape.

        Raises:
            DataError: images cannot be used and are not to be skipped, or a class has none that can, or sizes
                differ and `framing` is None.
        """
        chosen = self._choose(train, test)
        files = [path for part in chosen for path in part.files]
        decoded = open_decoded(self._root, files, self._framing, self._cache_folder)
        images = decoded.images
        parts, start = [], 0
        for part, good in zip(chosen, self._good(chosen, files, decoded.findings), strict=True):
            here = ImageSet(images[start : start + len(part.files)], part.labels)
            start += len(part.files)
            names = tuple(printable(part.files[index]) for index in good.tolist())
            kept = here if len(good) == len(here) else here.select(good)
            parts.append(NamedImages(kept, names, _at(part.columns, good)))
        train_images, validation, test_images = parts
        return SourceImages(train_images, None if self._listings.validation is None else validation, test_images)

    def check(self, train: NDArray[np.int64], test: NDArray[np.int64]) -> CheckedSplits:
        """Judge the files at these indices, and all validation files, and return those that can be used.

        Raises:
            DataError: images cannot be used and are not to be skipped, or a class has none that can.
        """
        chosen = self._choose(train, test)
        files = [path for part in chosen for path in part.files]
        checked = open_checked(self._root, files, self._cache_folder)
        parts, start = [], 0
        for part, good in zip(chosen, self._good(chosen, files, checked.findings), strict=True):
            kept = ImageFiles(self._root, part.files, part.labels, checked.channels).select(good)
            values = tuple(checked.fingerprints[start + index] for index in good.tolist())
            start += len(part.files)
            fingerprints = Fingerprints(values, tuple(map(printable, kept.paths)))
            parts.append(CheckedSplit(kept, fingerprints, _at(part.columns, good)))
        train_files, validation, test_files = parts
        return CheckedSplits(train_files, None if self._listings.validation is None else validation, test_files)

    def decode(self, *parts: ImageFiles) -> tuple[ImageSet, ...]:
        """Decode files that were checked, each part into one set.

        Raises:
            DataError: an image cannot be used any more.
        """
        files = [path for part in parts for path in part.paths]
        decoded = open_decoded(self._root, files, self._framing, self._cache_folder)
        if decoded.findings.bad:
            decoded.findings.report(files, skip_bad=False)
        images = decoded.images
        sets = []
        for part in parts:
            piece, images = images[: len(part)], images[len(part) :]
            # these may all be grey while others are not
            sets.append(ImageSet(_of_channels(piece, part.channels), part.labels))
        return tuple(sets)

    def _choose(self, train: NDArray[np.int64], test: NDArray[np.int64]) -> tuple[_Chosen, _Chosen, _Chosen]:
        """Training, validation and test files; no validation files if there is no folder of them."""
        listings = self._listings
        middle = _Chosen((), np.empty(0, dtype=np.int64))
        if listings.validation is not None:
            middle = _Chosen(listings.validation.files, listings.validation.labels)
        return _Chosen.of(listings.train, train), middle, _Chosen.of(listings.test, test)

    def _good(self, chosen: Sequence[_Chosen], files: Sequence[Path], findings: Findings) -> list[NDArray[np.int64]]:
        """Positions of the usable files in each part, int64; after what was found is reported."""
        findings.report(files, skip_bad=self._skip_bad)
        good, start = findings.good(len(files)), 0
        kept = []
        for part in chosen:
            end = start + len(part.files)
            kept.append(good[(good >= start) & (good < end)] - start)
            self._require_every_class(part.labels[kept[-1]], part.labels)
            start = end
        return kept

    def _require_every_class(self, left: NDArray[np.int64], chosen: NDArray[np.int64]) -> None:
        lost = sorted(set(chosen.tolist()) - set(left.tolist()))
        if lost:
            names = ", ".join(self.classes[label] for label in lost)
            raise DataError(f"no image that can be used is left of: {names}")


def _at(columns: Mapping[str, tuple[str, ...]], places: NDArray[np.int64]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(values[place] for place in places.tolist()) for name, values in columns.items()}


def _of_channels(images: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    return images if images.shape[1] == channels else np.repeat(images, channels, axis=1)
