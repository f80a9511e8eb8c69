"""Test images that are training or validation images too."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecd_deploy.data.overlap import fingerprint, fingerprint_suspects
from ecd_deploy.errors import DataError
from tests.data.imagefolder.folders import load, make_folders

LOADINGS = pytest.mark.parametrize("loading", [{}, {"loading": "files", "image_size": 8}], ids=["cache", "files"])


@LOADINGS
def test_they_are_counted_and_named_below_the_share(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, loading: dict[str, object]
) -> None:
    root = make_folders(tmp_path)
    assert load(root, **loading).overlapping_test_images == 0
    assert caplog.text == ""
    # other bytes, the same pixels
    Image.open(root / "train" / "dog" / "3.png").save(root / "test" / "dog" / "twin.bmp")
    with caplog.at_level(logging.WARNING):
        assert load(root, max_test_overlap=0.15, **loading).overlapping_test_images == 1
    assert "1 of 7 test images (14.29%) are training or validation images too" in caplog.text
    assert f"{root}/test/dog/twin.bmp is {root}/train/dog/3.png" in caplog.text


@LOADINGS
def test_above_the_share_they_are_refused(tmp_path: Path, loading: dict[str, object]) -> None:
    root = make_folders(tmp_path)
    for number in range(6):
        shutil.copy(root / "train" / "cat" / f"{number}.png", root / "test" / "cat" / f"twin{number}.png")
    with pytest.raises(DataError, match=r"6 of 12 test images \(50\.00%\).*[\s\S]*and 1 more[\s\S]*max_test_overlap"):
        load(root, **loading)


@LOADINGS
@pytest.mark.parametrize("twin", ["train", "val"])
def test_a_test_folder_that_is_a_link_to_another_split_is_refused(
    tmp_path: Path, loading: dict[str, object], twin: str
) -> None:
    root = make_folders(tmp_path, ("train", "val"))
    (root / "test").symlink_to(twin)
    with pytest.raises(DataError, match=r"test images \(100\.00%\) are training or validation images too"):
        load(root, **loading)


def test_those_that_are_not_read_do_not_count(tmp_path: Path) -> None:
    root = make_folders(tmp_path)
    for name in ("cat", "dog", "fox"):
        Image.open(root / "train" / name / "0.png").save(root / "test" / name / "twin.png")
    assert load(root, test_limit=3, train_limit=6, max_test_overlap=1).overlapping_test_images <= 3
    (root / "test" / "cat" / "0.png").write_bytes(b"")
    assert load(root, skip_bad=True, max_test_overlap=1).overlapping_test_images == 3


def test_only_images_that_may_be_the_same_are_read_whole() -> None:
    draw = np.random.default_rng(0)
    test, train, validation = (draw.integers(0, 256, (count, 3, 9, 7), dtype=np.uint8) for count in (5, 20, 4))
    train[4], validation[1] = test[2], test[3]
    train[6, :, 4] = test[0, :, 4]  # the middle row alone
    values = fingerprint_suspects(test, train, validation)
    assert [[place for place, value in enumerate(part) if value] for part in values] == [[0, 2, 3], [4, 6], [1]]
    assert values[0][2] == values[1][4] == fingerprint(test[2])
    assert values[0][3] == values[2][1]
    assert values[0][0] != values[1][6]


def test_a_fingerprint_sees_shape_and_every_pixel() -> None:
    pixels = np.zeros((3, 4, 6), dtype=np.uint8)
    changed = pixels.copy()
    changed[2, 3, 5] = 1
    assert len({fingerprint(pixels), fingerprint(changed), fingerprint(pixels.reshape(3, 6, 4))}) == 3
    assert fingerprint(np.asfortranarray(changed)) == fingerprint(changed)
