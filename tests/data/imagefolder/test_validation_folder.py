"""`train/`, `val/` and `test/` side by side: the middle one is the validation split."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecd_deploy.data import has_validation
from ecd_deploy.errors import DataError
from ecd_deploy.recipe.data import DataConfig
from tests.data.imagefolder.folders import CLASSES, load, make_folders
from tests.small import present

SPLITS = ("train", "test", "val")


@pytest.mark.parametrize("loading", ["cache", "files"])
@pytest.mark.parametrize("fraction", [0.0, 0.34])
def test_its_images_are_the_validation_split_and_none_is_cut_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, loading: str, fraction: float
) -> None:
    root = make_folders(tmp_path, SPLITS)
    with caplog.at_level(logging.WARNING):
        data = load(root, validation_fraction=fraction, loading=loading, image_size=8)
    assert (len(data.train), len(data.test)) == (18, 6)
    expected = [np.asarray(Image.open(root / "val" / name / f"{number}.png")) for name in CLASSES for number in (0, 1)]
    found = present(data.validation)
    assert np.array_equal(found.images.transpose(0, 2, 3, 1), np.stack(expected))
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert "the 6 images of the validation split are validated on" in caplog.text
    assert ("data.validation_fraction 0.34 has no effect" in caplog.text) == (fraction > 0)


@pytest.mark.parametrize("name", ["val", "validation", "valid"])
def test_each_usual_name_serves_and_two_are_refused(tmp_path: Path, name: str) -> None:
    root = make_folders(tmp_path, ("train", "test", name))
    assert len(present(load(root).validation)) == 6
    make_folders(tmp_path, ("valid", "validation"))
    with pytest.raises(DataError, match=r"has .*validation/ and valid/: keep one of them"):
        load(root)


def test_the_digest_sees_its_images(tmp_path: Path) -> None:
    root = make_folders(tmp_path, SPLITS)
    first = load(root).digest
    Image.new("RGB", (8, 8)).save(root / "val" / "dog" / "0.png")
    second = load(root).digest
    (root / "val").rename(root / "other")
    assert len({first, second, load(root).digest}) == 3


def test_its_classes_and_files_are_judged_too(tmp_path: Path) -> None:
    root = make_folders(tmp_path, SPLITS)
    (root / "val" / "cat" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"val/cat/0\.png: not an image"):
        load(root)
    data = load(root, skip_bad=True)
    assert present(data.validation).labels.tolist() == [0, 1, 1, 2, 2]
    assert data.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    (root / "val" / "dog").rename(root / "val" / "wolf")
    with pytest.raises(DataError, match="only in train/: dog; only in val/: wolf"):
        load(root)


def test_whether_there_will_be_validation_images_is_known_beforehand(tmp_path: Path) -> None:
    root = make_folders(tmp_path, ("train", "val"))

    def known(fraction: float) -> bool:
        return has_validation(DataConfig(source="imagefolder", path=str(root), validation_fraction=fraction))

    assert (known(0.1), known(0.0)) == (True, False)  # `val/` alone is what is tested on
    make_folders(tmp_path, ("test",))
    assert known(0.0)
