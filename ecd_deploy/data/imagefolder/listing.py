"""Which image files there are below `train/`, `val/` and `test/`, and of which class each is."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.errors import DataError

_TRAIN = "train"
_TEST = "test"
_VALIDATION = ("val", "validation", "valid")
# What systems and archivers leave behind; names that begin with a dot are left aside too.
_IGNORED = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx"})
_NAMED = 5


@dataclass(frozen=True)
class Listing:
    """The files of one split, by class and then by path.

    Attributes:
        folder: that they are below.
        classes: names, in the order of the labels.
        files: N of them.
        labels: int64, (N,).
        columns: what else a table says of each, by the column's name.
    """

    folder: Path
    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: NDArray[np.int64]
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Listings:
    """The splits of files below a root; validation is None if there is none of its own."""

    root: Path
    train: Listing
    validation: Listing | None
    test: Listing


def list_root(root: Path) -> Listings:
    """List `train/`, `test/` and `val/`; where there is no `test/`, `val/` is what is tested on.

    Raises:
        DataError: a folder is missing, a class is empty, the classes of two splits differ, or names or links
            leave it open which images a class has.
    """
    train = list_split(_train_folder(root))
    validation_folder = find_validation_folder(root)
    test = list_split(_test_folder(root))
    validation = None if validation_folder is None else list_split(validation_folder)
    for other in (test, validation):
        if other is not None:
            require_same_classes(
                f"the classes below {root}", {f"{part.folder.name}/": part.classes for part in (train, other)}
            )
    return Listings(root, train, validation, test)


def find_validation_folder(root: Path) -> Path | None:
    """`val/`, `validation/` or `valid/`, if it stands beside a `test/`."""
    return _validation_folder(root) if (root / _TEST).is_dir() else None


def class_folders(split: Path) -> dict[str, Path]:
    """The folder of each class, by the class's name, sorted; names that differ in their encoding alone are one name.

    Raises:
        DataError: there are fewer than two classes, or a name cannot be used.
    """
    found: dict[str, Path] = {}
    for name in _visible_folders(split):
        if not name.isprintable() and any(unicodedata.category(sign) in {"Cc", "Cs"} for sign in name):
            raise DataError(
                f"the class folder {printable(split / name)} has a name that is not UTF-8 or holds control "
                "characters: rename it"
            )
        # macOS writes accents as signs of their own (NFD), other systems do not (NFC)
        composed = unicodedata.normalize("NFC", name)
        if composed in found:
            raise DataError(
                f"{split} has two folders of the class {composed}, whose names differ only in how Unicode composes "
                f"accents (NFC, NFD): {found[composed].name!a} and {name!a}; merge them"
            )
        found[composed] = split / name
    if not found:
        raise DataError(f"{split} has no class folders: put the images at {split.name}/<class>/<image>")
    if len(found) == 1:
        _refuse_one_class(split, *found.values())
    return dict(sorted(found.items()))


def printable(text: object) -> str:
    """The text with what cannot be printed, or would steer the terminal, escaped."""
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in plain)


def _train_folder(root: Path) -> Path:
    if not root.is_dir():
        raise DataError(f"data.path: there is no folder {root}")
    folder = root / _TRAIN
    if not folder.is_dir():
        below = [name for name in _visible_folders(root) if (root / name / _TRAIN).is_dir()]
        hint = f"; data.path = {str(root / below[0])!r} has one" if below else ""
        raise DataError(f"{root} has no folder train/: put the images at train/<class>/<image>{hint}")
    return folder


def _test_folder(root: Path) -> Path:
    folder = root / _TEST if (root / _TEST).is_dir() else _validation_folder(root)
    if folder is None:
        raise DataError(f"{root} has neither test/ nor val/: put the test images at test/<class>/<image>")
    return folder


def _validation_folder(root: Path) -> Path | None:
    found = [root / name for name in _VALIDATION if (root / name).is_dir()]
    if len(found) > 1:
        raise DataError(f"{root} has {' and '.join(f'{folder.name}/' for folder in found)}: keep one of them")
    return found[0] if found else None


def _refuse_one_class(split: Path, folder: Path) -> NoReturn:
    inner = _visible_folders(folder)
    if not inner:
        raise DataError(
            f"{split} has one class only, {folder.name}: put the images at {split.name}/<class>/<image>, for two "
            "classes or more"
        )
    named = ", ".join(printable(name) for name in inner[:_NAMED]) + (", ..." if len(inner) > _NAMED else "")
    raise DataError(
        f"{split} has one class only, {folder.name}, and that holds folders: {named}. If these are the classes, there "
        f"is a folder level too many: move them from {split.name}/{folder.name}/ up to {split.name}/"
    )


def list_split(folder: Path) -> Listing:
    """List the images below `folder/CLASS/`.

    Raises:
        DataError: see `list_root`.
    """
    folders = class_folders(folder)
    listed = _known_folders(folder)
    by_class = [_visible_files(inner, listed) for inner in folders.values()]
    empty = [name for name, files in zip(folders, by_class, strict=True) if not files]
    if empty:
        raise DataError(f"{folder} has classes without images: {', '.join(empty)}")
    labels = np.repeat(np.arange(len(by_class)), [len(files) for files in by_class])
    return Listing(folder, tuple(folders), tuple(file for files in by_class for file in files), labels)


def _known_folders(split: Path) -> dict[tuple[int, int], Path]:
    """The split's own folder and those above it, which no link below may lead to; by device and inode."""
    whole = split.resolve()
    return {_identity(folder): folder for folder in (whole, *whole.parents)}


def _visible_files(folder: Path, listed: dict[tuple[int, int], Path]) -> list[Path]:
    """Files below, links followed, in the order of their paths; the folders that were walked are added to `listed`."""
    found: list[str] = []  # text sorts many times faster than paths
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_refuse_unreadable):
        here = Path(parent)
        first = listed.setdefault(_identity(here), here)
        if first is not here:
            raise DataError(
                f"{printable(here)} is the folder {printable(first)} once more, by a link, so that images would be "
                "counted twice or given another class: remove the link"
            )
        folders[:] = [name for name in folders if _is_visible(name)]
        found += [f"{parent}{os.sep}{name}" for name in names if _is_visible(name)]
    return [Path(name) for name in sorted(found)]


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _visible_folders(folder: Path) -> list[str]:
    """Names of the folders in it, sorted."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if _is_visible(entry.name) and entry.is_dir())
    except OSError as error:
        _refuse_unreadable(error)


def _refuse_unreadable(error: OSError) -> NoReturn:
    raise DataError(f"cannot read the folder {printable(error.filename)}: {error.strerror}") from error


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _IGNORED


def require_same_classes(what: str, classes: Mapping[str, tuple[str, ...]]) -> None:
    """Check that two splits, by name, have the same classes; `what` begins the error.

    Raises:
        DataError: naming those that only one has.
    """
    (first, ours), (second, theirs) = classes.items()
    differences = [
        f"only in {name}: {', '.join(map(printable, sorted(only)))}"
        for name, only in ((first, set(ours) - set(theirs)), (second, set(theirs) - set(ours)))
        if only
    ]
    if differences:
        raise DataError(f"{what} differ; {'; '.join(differences)}")
