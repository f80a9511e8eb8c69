"""The classification data sets of torchvision, read by its own classes, which download what is missing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ecd_deploy.data.images import ImageSet
from ecd_deploy.data.resize import Framing
from ecd_deploy.data.sources.arrays import ArraySource
from ecd_deploy.errors import DataError, UsageError, did_you_mean, reraise_machine_fault

_DEFAULT_FOLDER = "data"
_CIFAR: Final = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}


@dataclass(frozen=True)
class _Splits:
    """The argument of a data set's class that chooses a split, and its values; None where there is no such split."""

    argument: Literal["train", "split"]
    train: object
    validation: object
    test: object


_BY_FLAG = _Splits("train", True, None, False)
_BY_NAME = _Splits("split", "train", None, "test")
_THREE = _Splits("split", "train", "val", "test")
_SETS: Final[Mapping[str, _Splits]] = {
    **dict.fromkeys(("CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "MNIST", "USPS"), _BY_FLAG),
    **dict.fromkeys(("Food101", "GTSRB", "STL10", "StanfordCars", "SVHN"), _BY_NAME),
    **dict.fromkeys(("DTD", "FGVCAircraft", "Flowers102", "PCAM", "RenderedSST2"), _THREE),
    "Country211": _Splits("split", "train", "valid", "test"),
    "Imagenette": _Splits("split", "train", None, "val"),
    "OxfordIIITPet": _Splits("split", "trainval", None, "test"),
}


def open_cifar(name: Literal["cifar10", "cifar100"], path: str | None, framing: Framing | None) -> ArraySource:
    """Open CIFAR from `path` (default `data`), downloading it if it is not there; see `open_torchvision`."""
    return _open(name, _CIFAR[name], path, framing)


def open_torchvision(name: str, path: str | None, framing: Framing | None) -> ArraySource:
    """Open a data set of torchvision from the folder `path` (default `data`), with its own splits; all is in memory.

    Raises:
        UsageError: torchvision is not installed, or has no such data set for classification.
        DataError: it cannot be downloaded, files are damaged, or images have many sizes and `framing` is None.
    """
    if name not in _SETS:
        hint, choices = did_you_mean(name, tuple(_SETS)), ", ".join(_SETS)
        raise UsageError(f"data.source: there is no 'torchvision:{name}'{hint}; names are {choices}")
    return _open(f"torchvision:{name}", name, path, framing)


def _open(source: str, name: str, path: str | None, framing: Framing | None) -> ArraySource:
    try:
        from torchvision import datasets
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{source} comes through torchvision, which is not installed: pip install 'ecd-deploy[train]' ({error})"
        ) from error
    dataset, splits, folder = getattr(datasets, name), _SETS[name], Path(path or _DEFAULT_FOLDER)
    try:
        # numpy warns of how the pickles of 2009 name their types
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = {
                split: dataset(str(folder), **{splits.argument: value}, download=True)
                for split, value in (("train", splits.train), ("validation", splits.validation), ("test", splits.test))
                if value is not None
            }
        whole = all(hasattr(found, "data") and hasattr(found, "targets") for found in opened.values())
        images = {
            split: _whole(found) if whole else _one_by_one(source, found, framing) for split, found in opened.items()
        }
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        reraise_machine_fault(error)
        where = f"fetch {dataset.url} yourself and put the file" if hasattr(dataset, "url") else "put its files"
        raise DataError(
            f"cannot download {source} to {folder} or read it from there: {error}. Check the connection, or {where} "
            f"into {folder} (data.path)"
        ) from error
    classes = _classes(opened["train"], images["train"])
    left = framing if whole else None
    return ArraySource(images["train"], images["test"], classes, left, images.get("validation"))


def _whole(dataset: Any) -> ImageSet:
    """A split that is one array, (N, H, W) or (N, H, W, 3)."""
    return _image_set(np.asarray(dataset.data, dtype=np.uint8), np.asarray(dataset.targets, dtype=np.int64))


def _image_set(pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> ImageSet:
    planes = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    return ImageSet(np.ascontiguousarray(planes), labels)


def _one_by_one(source: str, dataset: Any, framing: Framing | None) -> ImageSet:
    """A split whose images are decoded when they are asked for, framed at once; grey where all are."""
    pictures: list[Image.Image] = []
    labels: list[int] = []
    for index in range(len(dataset)):
        picture, label = dataset[index]
        picture = picture if picture.mode == "L" else picture.convert("RGB")
        pictures.append(picture if framing is None else framing.apply(picture))
        labels.append(int(label))
    if any(picture.mode != "L" for picture in pictures):
        pictures = [picture.convert("RGB") for picture in pictures]
    sizes = {picture.size for picture in pictures}
    if len(sizes) > 1:
        raise DataError(f"the images of {source} have {len(sizes)} sizes: set data.image_size")
    pixels = np.stack([np.asarray(picture, dtype=np.uint8) for picture in pictures])
    return _image_set(pixels, np.array(labels, dtype=np.int64))


def _classes(dataset: Any, images: ImageSet) -> tuple[str, ...]:
    """Their names, if the data set has them, or else their numbers."""
    named = getattr(dataset, "classes", None)
    if named is None:
        return tuple(map(str, range(int(images.labels.max()) + 1)))
    # a class of OxfordIIITPet or of MNIST is a string; one of Imagenette is a tuple of synonyms
    return tuple(name if isinstance(name, str) else ", ".join(name) for name in named)
