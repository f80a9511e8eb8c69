"""Folders as users have them: a level too many, names of other systems, links that lead back."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from ecd_deploy.data.imagefolder.listing import list_root, printable
from ecd_deploy.errors import DataError
from tests.data.imagefolder.folders import CLASSES, load, make_folders, save_noise

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
NO_UTF8 = os.fsdecode(b"caf\xe9")


def test_an_extra_folder_level_is_named_with_what_is_in_it(tmp_path: Path) -> None:
    root = make_folders(tmp_path, splits=("train/images", "test/images"))
    with pytest.raises(DataError, match=r"train has one class only, images, .*cat, dog, fox.*a folder level too many"):
        list_root(root)
    with pytest.raises(DataError, match=rf"no folder train/.*data\.path = '{tmp_path / 'above' / 'a'}' has one"):
        list_root(make_folders(tmp_path / "above", splits=("a/train", "a/test")))


def test_one_class_without_folders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"one class only, cat: put the images .* for two classes or more"):
        list_root(make_folders(tmp_path, classes=("cat",)))


@pytest.mark.parametrize(("name", "shown"), [(NO_UTF8, r"caf\udce9"), ("a\nb", r"a\nb"), ("a\x1b[1m", r"a\x1b[1m")])
def test_a_class_name_that_cannot_be_written_is_refused_by_name(tmp_path: Path, name: str, shown: str) -> None:
    root = make_folders(tmp_path)
    for split in ("train", "test"):
        (root / split / "dog").rename(root / split / name)
    with pytest.raises(DataError, match="not UTF-8 or holds control characters: rename it") as caught:
        list_root(root)
    assert shown in str(caught.value)
    assert str(caught.value).isprintable()


def test_names_of_files_that_are_not_utf8_are_shown_printably(tmp_path: Path) -> None:
    root = make_folders(tmp_path)
    (root / "train" / "cat" / f"{NO_UTF8}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"train/cat/caf\\udce9\.png: not an image") as caught:
        load(root)
    str(caught.value).encode()
    assert len(load(root, skip_bad=True).test) == 6
    assert printable("plain [bold]") == "plain [bold]"


def test_composed_and_decomposed_accents_are_one_class(tmp_path: Path) -> None:
    expected = list_root(make_folders(tmp_path / "a", classes=("cat", NFC)))
    root = make_folders(tmp_path / "b", classes=("cat", NFC))
    (root / "test" / NFC).rename(root / "test" / NFD)
    found = list_root(root)
    assert found.train.classes == found.test.classes == expected.test.classes == (NFC, "cat")
    assert found.test.labels.tolist() == expected.test.labels.tolist()
    save_noise(root / "test" / NFC / "0.png", np.random.default_rng(9))
    with pytest.raises(DataError, match=r"two folders of the class .* differ only in how Unicode composes"):
        list_root(root)


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("cat/up", ".."),
        ("cat/up", "../.."),
        ("cat/self", "."),
        ("cat/other", "../dog"),
        ("cat/deep/up", "../.."),
        ("ape", "fox"),
        ("cat/everything", "/"),
    ],
)
def test_links_that_give_images_another_class_are_refused_by_name(tmp_path: Path, link: str, target: str) -> None:
    root = make_folders(tmp_path)
    path = root / "train" / link
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(target)
    with pytest.raises(DataError, match="once more, by a link") as caught:
        list_root(root)
    assert str(root / "train") in str(caught.value)


def test_links_to_folders_elsewhere_are_followed(tmp_path: Path) -> None:
    root = make_folders(tmp_path / "a")
    expected = load(root).digest
    (root / "train" / "cat").rename(tmp_path / "cats")
    (root / "train" / "cat").symlink_to(tmp_path / "cats")
    (root / "test" / "dog" / "1.png").rename(tmp_path / "1.png")
    (root / "test" / "dog" / "1.png").symlink_to(tmp_path / "1.png")
    assert load(root).digest == expected


def test_what_systems_leave_behind_is_ignored(tmp_path: Path) -> None:
    root = make_folders(tmp_path)
    expected = load(root).digest
    for name in ("Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini", ".DS_Store", "._0.png", ".name"):
        (root / "train" / "cat" / name).write_bytes(b"no image")
    for folder in ("__MACOSX", ".name", "cat/__MACOSX", "cat/.cache"):
        save_noise(root / "train" / folder / "0.png", np.random.default_rng(9))
    save_noise(root / "__MACOSX" / "train" / "cat" / "0.png", np.random.default_rng(9))
    assert load(root).digest == expected
    assert list_root(root).train.classes == CLASSES


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    root = make_folders(tmp_path)
    (root / "train" / "cat").chmod(0)
    try:
        with pytest.raises(DataError, match=r"cannot read the folder .*train/cat: Permission denied"):
            list_root(root)
    finally:
        (root / "train" / "cat").chmod(0o700)
