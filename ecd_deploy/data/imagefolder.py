"""The user's own images: `train/<class>/*` and `test/<class>/*` (or `val/`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ecd_deploy.data.decode import choose_shape, decode_images, read_headers
from ecd_deploy.data.images import ImageSet
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
        image_size: side in pixels, or None if all images have one size.

    Raises:
        DataError: a folder is missing, a class is empty, or the classes of the two splits differ.
    """

    def __init__(self, root: Path, image_size: int | None) -> None:
        train, test = _list_split(_train_folder(root)), _list_split(_test_folder(root))
        _require_same_classes(root, train.classes, test.classes)
        self.classes = train.classes
        self.train_labels: Tensor = train.labels
        self.test_labels: Tensor = test.labels
        self._train = train
        self._test = test
        self._image_size = image_size

    def read(self, train: Tensor, test: Tensor) -> tuple[ImageSet, ImageSet]:
        """Decode the files at these indices into one shape.

        Raises:
            DataError: an image cannot be read, or sizes differ and `image_size` is not given.
        """
        train_files = [self._train.files[index] for index in train.tolist()]
        test_files = [self._test.files[index] for index in test.tolist()]
        shape = choose_shape(read_headers(train_files + test_files), self._image_size)
        return (
            ImageSet(torch.from_numpy(decode_images(train_files, shape)), self.train_labels[train]),
            ImageSet(torch.from_numpy(decode_images(test_files, shape)), self.test_labels[test]),
        )


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
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


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
