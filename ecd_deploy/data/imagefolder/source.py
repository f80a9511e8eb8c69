"""The user's own images: `train/<class>/*` and `test/<class>/*` (or `val/`)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ecd_deploy.data.imagefolder.cache import open_decoded
from ecd_deploy.data.imagefolder.checked import open_checked
from ecd_deploy.data.images import ImageFiles, ImageSet
from ecd_deploy.data.resize import Framing
from ecd_deploy.errors import DataError

_TEST_FOLDERS = ("test", "val")


@dataclass(frozen=True)
class _Listing:
    """The files of one split, by class and then by path; labels int64, (N,)."""

    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: Tensor


class FolderSource:
    """A `Source` of image files; hidden files and folders are ignored, all others must be images.

    Args:
        root: the folder that holds `train/` and `test/` or `val/`.
        framing: brings images to one size; None if all have one.
        cache_folder: where decoded images are kept.
        skip_bad: leave images out that cannot be used.

    Raises:
        DataError: a folder is missing, a class is empty, or the classes of the two splits differ.
    """

    def __init__(self, root: Path, framing: Framing | None, *, cache_folder: Path, skip_bad: bool = False) -> None:
        train, test = _list_split(_train_folder(root)), _list_split(_test_folder(root))
        _require_same_classes(root, train.classes, test.classes)
        self.classes = train.classes
        self.train_labels: Tensor = train.labels
        self.test_labels: Tensor = test.labels
        self._train = train
        self._test = test
        self._root = root
        self._framing = framing
        self._cache_folder = cache_folder
        self._skip_bad = skip_bad

    def read(self, train: Tensor, test: Tensor) -> tuple[ImageSet, ImageSet]:
        """Decode the files at these indices into one shape.

        Raises:
            DataError: images cannot be used and are not to be skipped, or a class has none that can, or sizes
                differ and `framing` is None.
        """
        train_files = [self._train.files[index] for index in train.tolist()]
        test_files = [self._test.files[index] for index in test.tolist()]
        files = train_files + test_files
        decoded = open_decoded(self._root, files, self._framing, self._cache_folder)
        decoded.findings.report(files, skip_bad=self._skip_bad)
        images = torch.from_numpy(decoded.images)
        labels = torch.cat([self.train_labels[train], self.test_labels[test]])
        good = decoded.findings.good(len(files))
        if len(good) == len(files):
            cut = len(train_files)
            return ImageSet(images[:cut], labels[:cut]), ImageSet(images[cut:], labels[cut:])
        whole = ImageSet(images, labels)
        splits = [
            whole.select(torch.from_numpy(part)) for part in np.split(good, [np.searchsorted(good, len(train_files))])
        ]
        for split, chosen in zip(splits, (self.train_labels[train], self.test_labels[test]), strict=True):
            self._require_every_class(split.labels, chosen)
        return splits[0], splits[1]

    def check(self, train: Tensor, test: Tensor) -> tuple[ImageFiles, ImageFiles]:
        """Judge the files at these indices and return those that can be used, without their pixels.

        Raises:
            DataError: images cannot be used and are not to be skipped, or a class has none that can.
        """
        chosen = [
            *(self._train.files[index] for index in train.tolist()),
            *(self._test.files[index] for index in test.tolist()),
        ]
        labels = torch.cat([self.train_labels[train], self.test_labels[test]])
        checked = open_checked(self._root, chosen, self._cache_folder)
        checked.findings.report(chosen, skip_bad=self._skip_bad)
        whole = ImageFiles(self._root, tuple(chosen), labels, checked.channels)
        good = torch.from_numpy(checked.findings.good(len(chosen)))
        kept_train, kept_test = whole.select(good[good < len(train)]), whole.select(good[good >= len(train)])
        self._require_every_class(kept_train.labels, self.train_labels[train])
        self._require_every_class(kept_test.labels, self.test_labels[test])
        return kept_train, kept_test

    def decode(self, *parts: ImageFiles) -> tuple[ImageSet, ...]:
        """Decode files that were checked, each part into one set.

        Raises:
            DataError: an image cannot be used any more.
        """
        files = [path for part in parts for path in part.paths]
        decoded = open_decoded(self._root, files, self._framing, self._cache_folder)
        if decoded.findings.bad:
            decoded.findings.report(files, skip_bad=False)
        images = torch.from_numpy(decoded.images)
        sets = []
        for part in parts:
            piece, images = images[: len(part)], images[len(part) :]
            # these may all be grey while others are not
            sets.append(ImageSet(piece.expand(-1, part.channels, -1, -1).contiguous(), part.labels))
        return tuple(sets)

    def _require_every_class(self, left: Tensor, chosen: Tensor) -> None:
        lost = sorted(set(chosen.tolist()) - set(left.tolist()))
        if lost:
            names = ", ".join(self.classes[label] for label in lost)
            raise DataError(f"no image that can be used is left of: {names}")


def _train_folder(root: Path) -> Path:
    if not root.is_dir():
        raise DataError(f"data.path: there is no folder {root}")
    folder = root / "train"
    if not folder.is_dir():
        raise DataError(f"{root} has no folder train/: put the images at train/<class>/<image>")
    return folder


def _test_folder(root: Path) -> Path:
    for name in _TEST_FOLDERS:
        if (root / name).is_dir():
            return root / name
    raise DataError(f"{root} has neither test/ nor val/: put the test images at test/<class>/<image>")


def _list_split(folder: Path) -> _Listing:
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise DataError(f"{folder} has no class folders: put the images at {folder.name}/<class>/<image>")
    by_class = [_visible_files(folder / name) for name in classes]
    empty = [name for name, files in zip(classes, by_class, strict=True) if not files]
    if empty:
        raise DataError(f"{folder} has classes without images: {', '.join(empty)}")
    labels = [label for label, files in enumerate(by_class) for _ in files]
    return _Listing(tuple(classes), tuple(file for files in by_class for file in files), torch.tensor(labels))


def _visible_files(folder: Path) -> list[Path]:
    """Files below, links followed; in the order of their paths."""
    found: list[str] = []  # text sorts many times faster than paths
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [f"{parent}{os.sep}{name}" for name in names if not name.startswith(".")]
    return [Path(name) for name in sorted(found)]


def _require_same_classes(root: Path, train: tuple[str, ...], test: tuple[str, ...]) -> None:
    only_train, only_test = sorted(set(train) - set(test)), sorted(set(test) - set(train))
    if not only_train and not only_test:
        return
    differences = [
        f"only for {split}: {', '.join(names)}"
        for split, names in (("training", only_train), ("testing", only_test))
        if names
    ]
    raise DataError(f"the classes below {root} differ; {'; '.join(differences)}")
