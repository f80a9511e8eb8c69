from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional

from ecd_deploy.data import DataSplits, ImageFiles, balanced_subset, load, load_data
from ecd_deploy.data.imagefolder import checked
from ecd_deploy.errors import DataError
from tests.data.mixed_images import files_config, make_images
from tests.small import present


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_images(tmp_path)


def load_files(root: Path, **changes: object) -> tuple[DataSplits, ImageFiles]:
    data = load_data(files_config(root, **changes), seed=0)
    assert data.train_files is not None
    return data, data.train_files


def test_training_files_stay_files_and_the_rest_is_decoded(root: Path) -> None:
    data, files = load_files(root)
    assert (len(files), len(present(data.validation)), len(data.test)) == (27, 9, 6)
    assert data.input_shape == (3, 8, 8)
    cached = load_data(files_config(root, loading="cache"), seed=0)
    assert cached.train_files is None
    assert np.array_equal(present(data.validation).images, present(cached.validation).images)
    assert np.array_equal(data.test.images, cached.test.images)
    assert np.array_equal(files.labels, cached.train.labels)
    assert data.normalisation == cached.normalisation
    assert data.digest != cached.digest


def test_without_a_validation_split_every_file_is_trained_on(root: Path) -> None:
    cut, some = load_files(root)
    data, files = load_files(root, validation_fraction=0.0)
    assert data.validation is None
    assert set(files.paths) > set(some.paths)
    assert (len(files), len(data.train), len(data.test)) == (36, 36, 6)
    assert np.array_equal(data.test.images, cut.test.images)
    assert data.digest != cut.digest
    cached = load_data(files_config(root, loading="cache", validation_fraction=0.0), seed=0)
    assert np.array_equal(cached.train.labels, files.labels)
    assert cached.validation is None


def test_a_resize_is_that_of_every_image_that_is_evaluated(root: Path) -> None:
    straight, _ = load_files(root)
    data, _ = load_files(root, resize=11)
    cached = load_data(files_config(root, loading="cache", resize=11), seed=0)
    for found, expected in ((data.train, cached.train), (data.validation, cached.validation), (data.test, cached.test)):
        assert np.array_equal(present(found).images, present(expected).images)
    path = sorted((root / "test").rglob("*.png"))[0]
    with Image.open(path) as image:
        reference = functional.center_crop(functional.resize(image.convert("RGB"), 11), [8, 8])
    assert np.array_equal(data.test.images[0], functional.pil_to_tensor(reference).numpy())
    assert data.digest != straight.digest
    same, _ = load_files(root, resize=8)
    assert same.digest == straight.digest  # the same pixels


def test_the_sample_is_limited_and_balanced(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_SAMPLE_IMAGES", 6)
    data, files = load_files(root)
    assert Counter(data.train.labels.tolist()) == {0: 2, 1: 2, 2: 2}
    assert len(files) == 27
    assert Counter(load_files(root, train_limit=12)[1].labels.tolist()) == {0: 3, 1: 3, 2: 3}


def test_every_bad_file_is_listed_at_once_or_skipped(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = [root / "train" / "cat" / "03.jpg", root / "train" / "fox" / "04.png", root / "test" / "dog" / "00.png"]
    bad[0].write_bytes(bad[0].read_bytes()[:-60])  # its header is whole
    bad[1].write_bytes(b"<html>")
    bad[2].write_bytes(b"")
    for _ in range(2):  # judged, then remembered
        with pytest.raises(DataError, match=r"3 image\(s\) cannot be used") as caught:
            load_files(root)
        assert all(str(path) in str(caught.value) for path in bad)
    data, files = load_files(root, skip_bad=True)
    assert not set(bad) & set(files.paths)
    assert len(files) + len(present(data.validation)) == 34
    assert "3 image(s) cannot be used and are skipped" in caplog.text
    for path in (root / "train" / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no image that can be used is left of: dog"):
        load_files(root, skip_bad=True)


def test_files_are_judged_once_for_all_runs(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected, _ = load_files(root)
    with monkeypatch.context() as patch:
        patch.setattr(checked, "check_all", None)  # it would be called
        assert load_files(root)[0].digest == expected.digest
    entry = next((root / ".cache").glob("*.json"))
    content = json.loads(entry.read_text())
    content["checked"]["findings"]["bad"] = [[0, "a lie"]]
    entry.write_text(json.dumps(content))
    assert load_files(root)[0].digest == expected.digest
    assert "was changed after it was written" in caplog.text


def test_without_a_place_to_write_files_are_judged_each_time(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected, _ = load_files(root)
    (root / "in the way").write_text("")
    with caplog.at_level(logging.WARNING):
        assert load_files(root, cache_dir=str(root / "in the way"))[0].digest == expected.digest
    assert "images are checked anew" in caplog.text


def test_the_digest_sees_each_file_whether_it_is_sampled_or_not(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_SAMPLE_IMAGES", 3)
    data, files = load_files(root)
    sampled = files.select(balanced_subset(files.labels, 3, seed=0))
    path = next(path for path in files.paths if path not in sampled.paths)
    path.write_bytes(path.read_bytes() + b"\0")  # decoders stop before it
    longer, _ = load_files(root)
    assert longer.digest != data.digest
    assert np.array_equal(longer.train.images, data.train.images)
    path.rename(path.with_stem(path.stem + "a"))
    assert load_files(root)[0].digest not in (data.digest, longer.digest)


def test_one_channel_only_if_all_files_are_grey(root: Path) -> None:
    paths = sorted(path for path in root.rglob("*") if path.suffix in {".png", ".jpg"})
    for path in paths:
        with Image.open(path) as image:
            image.convert("L").save(path)
    data, files = load_files(root)
    assert (data.in_channels, files.channels) == (1, 1)
    Image.new("RGB", (12, 12), "red").save(next(path for path in files.paths if path.suffix == ".png"))
    data, files = load_files(root, test_limit=3)
    assert (data.in_channels, files.channels) == (3, 3)
    assert present(data.validation).images.shape[1:] == data.test.images.shape[1:] == (3, 8, 8)
