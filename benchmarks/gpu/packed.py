"""Packed images: strips of lossless WebP in a few archives, which Pillow alone reads, and their digests.

An archive holds, for each of its splits, `SPLIT/NNN.webp` (images below each other), `SPLIT/labels.npy` and
`SPLIT/indices.npy`: the places of its images in the split as a folder of images has it.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ecd_deploy.data import DataSplits, ImageSet
from ecd_deploy.data.digest import data_digest
from ecd_deploy.data.normalisation import choose_normalisation
from ecd_deploy.errors import ArtefactError, DataError, DigestError
from ecd_deploy.recipe.data import DataConfig
from ecd_deploy.records import Record

SplitName = Literal["train", "test"]
Pixels = NDArray[np.uint8]
"""(N, height, width, 3)."""

MANIFEST = "manifest.json"
FEW = "few"
TALLEST_STRIP = 16_383  # WebP's limit
_STRIP_IMAGES = 500


class PackedPart(Record):
    """The images of one split in one archive.

    Attributes:
        archive: its name without `.zip`.
        split: which images they are of.
        images: how many.
        sha256: of indices, labels and pixels, as `part_digest` takes it.
    """

    archive: str
    split: SplitName
    images: int
    sha256: str


class Manifest(Record):
    """What was packed.

    Attributes:
        few: the study whose training images with seed 0 are those of the archive `few`.
        classes: names, in the order of the labels.
        side: of an image, in pixels.
        parts: of all archives.
    """

    few: str
    classes: tuple[str, ...]
    side: int
    parts: tuple[PackedPart, ...]

    @property
    def archives(self) -> tuple[str, ...]:
        """Names of the archives, in the order of their parts."""
        return tuple(dict.fromkeys(part.archive for part in self.parts))


@dataclass(frozen=True)
class PartImages:
    """Images of a part.

    Attributes:
        pixels: (N, side, side, 3).
        labels: (N,), in [0, classes).
        indices: (N,), places in the whole split.
    """

    pixels: Pixels
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]


def part_digest(part: PartImages) -> str:
    """SHA-256 over indices, labels (int64, little endian) and pixels."""
    digest = hashlib.sha256()
    for array in (part.indices.astype("<i8"), part.labels.astype("<i8"), part.pixels):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def images_of_a_strip(side: int) -> int:
    """How many images are packed below each other."""
    return min(_STRIP_IMAGES, TALLEST_STRIP // side)


def read_manifest(folder: Path) -> Manifest:
    """Read what a folder says it holds.

    Raises:
        DataError: there is no such file, or it is none of ours.
    """
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}; make it with `python -m benchmarks.gpu pack --images DIR --out "
            f"{folder}`"
        ) from error
    return Manifest.from_json(data, f"{path} is not a manifest of packed images", DataError)


def read_part(folder: Path, part: PackedPart, side: int) -> PartImages:
    """Decode the images of a part and verify them.

    Raises:
        ArtefactError: the archive cannot be read.
        DigestError: the images are not those that were packed.
    """
    path = folder / f"{part.archive}.zip"
    try:
        with zipfile.ZipFile(path) as archive:
            found = _decode(archive, part, side)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ArtefactError(f"cannot read {part.split} of {path}: {error}") from error
    if (sha256 := part_digest(found)) != part.sha256:
        raise DigestError(f"{part.split} of {path} is not what was packed: SHA-256 is {sha256}, not {part.sha256}")
    return found


def read_data(folder: Path, *, few: bool, config: DataConfig) -> DataSplits:
    """Read the few training images or all of them, and all test images.

    Args:
        folder: the packed images.
        few: whether to take the archive `few` alone.
        config: for the normalisation.

    Raises:
        ArtefactError: an archive is missing or damaged.
    """
    manifest = read_manifest(folder)
    train, test = (
        _together(
            [
                read_part(folder, part, manifest.side)
                for part in manifest.parts
                if part.split == split and (part.archive == FEW or not few)
            ]
        )
        for split in ("train", "test")
    )
    return DataSplits(
        train=train,
        validation=None,
        test=test,
        classes=manifest.classes,
        normalisation=choose_normalisation(config, train.images),
        digest=data_digest((train, test), manifest.classes),
    )


def _decode(archive: zipfile.ZipFile, part: PackedPart, side: int) -> PartImages:
    labels, indices = (
        np.load(io.BytesIO(archive.read(f"{part.split}/{name}.npy")), allow_pickle=False)
        for name in ("labels", "indices")
    )
    pixels = np.empty((part.images, side, side, 3), np.uint8)
    each = images_of_a_strip(side)
    for number, start in enumerate(range(0, part.images, each)):
        piece = pixels[start : start + each]
        piece[:] = decode_strip(archive.read(f"{part.split}/{number:03d}.webp"), side)
    return PartImages(pixels, labels, indices)


def decode_strip(data: bytes, side: int) -> Pixels:
    """(N, side, side, 3) from the bytes of a strip."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).reshape(-1, side, side, 3)


def _together(parts: list[PartImages]) -> ImageSet:
    """All images in the order of a folder of images."""
    order = np.argsort(np.concatenate([part.indices for part in parts]), kind="stable")
    pixels = np.concatenate([part.pixels for part in parts])[order]
    labels = np.concatenate([part.labels for part in parts])[order]
    return ImageSet(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), labels)
