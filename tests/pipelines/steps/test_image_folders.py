"""Image folders by the real command: what ends it before anything is written, and what a validation folder does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import Ended, run_command
from tests.data.imagefolder.folders import make_folders

TINY = ("train.epochs=1", "train.batch_size=6", "train.threads=1", "train.warmup_epochs=0.0")


def train(root: Path, *overrides: str) -> Ended:
    words = ("data.source=imagefolder", f"data.path={root}", f"data.cache_dir={root}/.cache", *TINY, *overrides)
    return run_command(
        [
            "train",
            root / "run",
            "--recipe",
            "digits",
            "--no-rehearsal",
            *(word for value in words for word in ("--set", value)),
        ],
        cwd=root,
    )


def extra_level(root: Path) -> None:
    for split in ("train", "test"):
        (root / split).rename(root / "moved")
        (root / split).mkdir()
        (root / "moved").rename(root / split / "images")


def not_utf8(root: Path) -> None:
    for split in ("train", "test"):
        (root / split / "dog").rename(root / split / os.fsdecode(b"d\xf6g"))


def link_loop(root: Path) -> None:
    (root / "train" / "cat" / "up").symlink_to("..")


def damaged(root: Path) -> None:
    (root / "train" / "cat" / "0.png").write_bytes(b"GIF89a")
    (root / "test" / "fox" / os.fsdecode(b"\xf6.png")).write_bytes(b"<html>")


def same_folder(root: Path) -> None:
    for path in (root / "test").rglob("*.png"):
        path.unlink()
    (root / "test").rename(root / "unused")
    (root / "test").symlink_to("train")


FAULTS: list[tuple[Callable[[Path], None], tuple[str, ...]]] = [
    (extra_level, ("one class only, images", "folder level too many")),
    (not_utf8, (r"d\udcf6g", "not UTF-8")),
    (link_loop, ("train/cat/up", "remove the link")),
    (damaged, ("2 image(s) cannot be used", "train/cat/0.png: ", r"test/fox/\udcf6.png: not an image")),
    (same_folder, ("18 of 18 test images (100.00%)", "data.max_test_overlap")),
]


@pytest.mark.parametrize(("fault", "said"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_a_folder_that_cannot_be_used_ends_with_4_and_one_message(
    tmp_path: Path, fault: Callable[[Path], None], said: tuple[str, ...]
) -> None:
    root = make_folders(tmp_path)
    fault(root)
    ended = train(root)
    assert ended.code == 4, ended.err
    text = " ".join(ended.err.split())
    assert all(words in text for words in said), ended.err
    assert "Traceback" not in ended.err
    assert "Warning" not in ended.err
    assert not (root / "run").exists()


def test_with_a_validation_folder_the_best_epoch_needs_no_cut(tmp_path: Path) -> None:
    root = make_folders(tmp_path, ("train", "val", "test"))
    ended = train(root, "data.validation_fraction=0", "train.select=best")
    assert ended.code == 0, ended.err
    assert "the 6 images of the validation split are validated on" in " ".join(ended.err.split())
    assert json.loads((root / "run" / "training.json").read_text())["best"] is not None


def test_without_one_the_best_epoch_is_refused_before_an_image_is_read(tmp_path: Path) -> None:
    root = make_folders(tmp_path)
    damaged(root)
    ended = train(root, "data.validation_fraction=0", "train.select=best")
    assert ended.code == 2, ended.err
    assert "set train.select to 'last'" in " ".join(ended.err.split())
    assert not (root / "run").exists()
