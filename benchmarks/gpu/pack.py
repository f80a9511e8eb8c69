"""Packs a folder of images, losslessly, for a machine that gets few files."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.gpu.packed import (
    FEW,
    MANIFEST,
    Manifest,
    PackedPart,
    PartImages,
    Pixels,
    SplitName,
    decode_strip,
    images_of_a_strip,
    part_digest,
    read_manifest,
    read_part,
)
from ecd_deploy.data import DataSplits, ImageSet, load_data
from ecd_deploy.data.subsets import balanced_subset, stratified_cut
from ecd_deploy.errors import ArtefactError, DataError
from ecd_deploy.files import write_atomic
from ecd_deploy.pipelines.study.study import load_study, recipe_of
from ecd_deploy.recipe.data import DataConfig

STUDY = "reduced-cifar100-few"
LARGEST_ARCHIVE = 50 * 2**20
_FIRST_REST = 1 / 3  # of what `few` leaves: `few` and `rest-1` are about as large together as `rest-2`
_THREADS = 2
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same images give the same bytes


def pack(images: Path, out: Path) -> Manifest:
    """Write `few.zip`, `rest-1.zip`, `rest-2.zip` and the manifest, and read them back.

    Args:
        images: a folder with `train/CLASS/IMAGE` and `test/CLASS/IMAGE`, square, in colour and of one size.
        out: gets the files.

    Raises:
        DataError: the images cannot be used.
        ArtefactError: a file cannot be written, is too large, or does not give the images back.
    """
    data = _read(images)
    few = few_of(data.train.labels)
    rest = np.setdiff1d(np.arange(len(data.train)), few)
    cut = round(len(rest) * _FIRST_REST)
    contents: dict[str, dict[SplitName, NDArray[np.int64]]] = {
        FEW: {"train": few, "test": np.arange(len(data.test))},
        "rest-1": {"train": rest[:cut]},
        "rest-2": {"train": rest[cut:]},
    }
    parts = [part for name, splits in contents.items() for part in _write_archive(out, name, splits, data)]
    manifest = Manifest(few=STUDY, classes=data.classes, side=data.image_size[0], parts=tuple(parts))
    write_atomic(out / MANIFEST, manifest.to_json())
    verify(out)
    return manifest


def verify(folder: Path) -> Manifest:
    """Decode everything that is packed in a folder.

    Raises:
        ArtefactError: an archive is missing or damaged, or gives other images than were packed.
    """
    manifest = read_manifest(folder)
    for part in manifest.parts:
        read_part(folder, part, manifest.side)
    return manifest


def few_of(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rising indices of the images that the study of few images trains on with seed 0.

    Args:
        labels: int64, (N,), of all training images.
    """
    study = load_study(STUDY)
    recipe = recipe_of(study, study.arm(study.baseline), seed=0)
    limited = balanced_subset(labels, recipe.data.train_limit, seed=recipe.seed)
    kept, _ = stratified_cut(labels[limited], recipe.data.validation_fraction, seed=recipe.seed)
    return limited[kept]


def _read(images: Path) -> DataSplits:
    with tempfile.TemporaryDirectory() as cache:
        config = DataConfig(source="imagefolder", path=str(images), validation_fraction=0.0, cache_dir=cache)
        data = load_data(config, seed=0)
    channels, height, width = data.input_shape
    if channels != 3 or height != width:
        raise DataError(
            f"{images} holds images of {channels} channel(s) and {height}x{width} pixels; what is packed is square and "
            "in colour"
        )
    return data


def _write_archive(
    out: Path, name: str, splits: Mapping[SplitName, NDArray[np.int64]], data: DataSplits
) -> list[PackedPart]:
    parts, buffer = [], io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for split, indices in splits.items():
            chosen = _select(data.train if split == "train" else data.test, indices)
            for file, content in _files(chosen).items():
                archive.writestr(zipfile.ZipInfo(f"{split}/{file}", _EPOCH), content)
            parts.append(PackedPart(archive=name, split=split, images=len(chosen.labels), sha256=part_digest(chosen)))
    if len(buffer.getvalue()) > LARGEST_ARCHIVE:
        raise ArtefactError(
            f"{name}.zip would have {len(buffer.getvalue()) / 2**20:.1f} MiB, more than {LARGEST_ARCHIVE / 2**20:.0f}"
        )
    write_atomic(out / f"{name}.zip", buffer.getvalue())
    return parts


def _select(images: ImageSet, indices: NDArray[np.int64]) -> PartImages:
    chosen = images.select(indices)
    return PartImages(np.ascontiguousarray(chosen.images.transpose(0, 2, 3, 1)), chosen.labels, indices)


def _files(part: PartImages) -> dict[str, bytes]:
    each = images_of_a_strip(part.pixels.shape[1])
    pieces = [part.pixels[start : start + each] for start in range(0, len(part.pixels), each)]
    with ThreadPoolExecutor(_THREADS) as threads:  # Pillow encodes without the interpreter's lock
        strips = list(threads.map(_encode, pieces))
    named = {f"{number:03d}.webp": strip for number, strip in enumerate(strips)}
    return {**named, "labels.npy": _npy(part.labels), "indices.npy": _npy(part.indices)}


def _encode(pixels: Pixels) -> bytes:
    side, buffer = pixels.shape[1], io.BytesIO()
    # a higher method takes many times as long for 2 % less
    Image.fromarray(pixels.reshape(-1, side, 3)).save(buffer, "WEBP", lossless=True, quality=50, method=4, exact=True)
    if not np.array_equal(decode_strip(buffer.getvalue(), side), pixels):
        raise ArtefactError("WebP did not give the images back as they were: this Pillow cannot be used for packing")
    return buffer.getvalue()


def _npy(array: NDArray[np.int64]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array.astype("<i8"), allow_pickle=False)
    return buffer.getvalue()
