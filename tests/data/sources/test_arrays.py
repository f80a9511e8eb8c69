from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10
from torchvision.transforms import functional

from ecd_deploy.data import load_data
from ecd_deploy.errors import DataError
from ecd_deploy.recipe.data import DataConfig
from tests.small import present


def test_digits_are_whole_balanced_and_the_same_for_every_seed() -> None:
    first, second = (load_data(DataConfig(source="digits"), seed=seed) for seed in (0, 1))
    assert len(first.train) + len(present(first.validation)) == 1297
    assert np.bincount(first.test.labels).tolist() == [50] * 10
    assert np.array_equal(first.test.images, second.test.images)
    assert first.digest != second.digest
    assert first.input_shape == (1, 8, 8)
    assert first.classes == tuple("0123456789")


def test_digits_keep_their_pixels_and_labels() -> None:
    data = load_data(DataConfig(source="digits"), seed=0)
    splits = (data.train, present(data.validation), data.test)
    found = {
        (bytes(image.tobytes()), int(label))
        for split in splits
        for image, label in zip(split.images, split.labels, strict=True)
    }
    digits = load_digits()
    levels = [round(255 * level / 16) for level in range(17)]
    expected = {
        (bytes(levels[int(pixel)] for pixel in image.flatten()), int(label))
        for image, label in zip(digits.images, digits.target, strict=True)
    }
    assert found == expected


def test_without_a_validation_split_every_image_is_trained_on() -> None:
    cut, whole = (load_data(DataConfig(source="digits", validation_fraction=part), seed=0) for part in (0.1, 0.0))
    assert whole.validation is None
    assert len(whole.train) == 1297
    together = np.concatenate([cut.train.images, present(cut.validation).images])
    assert int(together.sum()) == int(whole.train.images.sum())
    assert np.array_equal(whole.test.images, cut.test.images)
    assert whole.digest != cut.digest
    other_seed = load_data(DataConfig(source="digits", validation_fraction=0.0), seed=1)
    assert other_seed.digest == whole.digest  # nothing is left for the seed to choose


@pytest.mark.parametrize(("image_size", "resize"), [(12, 14), (8, 12), (6, 8)])
def test_resizing_before_the_crop_equals_torchvisions(image_size: int, resize: int) -> None:
    stored = load_data(DataConfig(source="digits", test_limit=20), seed=0)
    data = load_data(DataConfig(source="digits", image_size=image_size, resize=resize, test_limit=20), seed=0)
    assert data.input_shape == (1, image_size, image_size)
    for split, original in ((data.train, stored.train), (data.test, stored.test)):
        for index in (0, len(split) - 1):
            picture = Image.fromarray(original.images[index, 0])
            reference = functional.center_crop(functional.resize(picture, resize), [image_size, image_size])
            assert np.array_equal(split.images[index], functional.pil_to_tensor(reference).numpy())
    straight = load_data(DataConfig(source="digits", image_size=image_size, test_limit=20), seed=0)
    assert straight.digest != data.digest


def test_image_size_resizes_arrays_too() -> None:
    assert load_data(DataConfig(source="digits", image_size=12, test_limit=20), seed=0).input_shape == (1, 12, 12)


def test_limits_are_balanced() -> None:
    data = load_data(DataConfig(source="digits", train_limit=200, test_limit=30), seed=0)
    assert np.bincount(data.train.labels).tolist() == [18] * 10
    assert np.bincount(data.test.labels).tolist() == [3] * 10


def write_archive(path: Path) -> dict[str, Any]:
    """Write a small CIFAR-10 archive in the original layout; returns torchvision's checksums for it."""
    generator = np.random.default_rng(0)
    names = [f"data_batch_{number}" for number in range(1, 6)]
    contents = {
        name: {"data": generator.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": list(range(10)) * 2}
        for name in [*names, "test_batch"]
    }
    files = {name: pickle.dumps(content) for name, content in contents.items()}
    files["batches.meta"] = pickle.dumps({"label_names": [f"class {number}" for number in range(10)]})
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{CIFAR10.base_folder}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    sums = {name: hashlib.md5(data, usedforsecurity=False).hexdigest() for name, data in files.items()}
    return {
        "filename": path.name,
        "tgz_md5": hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest(),
        "train_list": [[name, sums[name]] for name in names],
        "test_list": [["test_batch", sums["test_batch"]]],
        "meta": {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]},
    }


def test_cifar_is_read_from_an_archive_that_was_put_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in write_archive(tmp_path / "small.tar.gz").items():
        monkeypatch.setattr(CIFAR10, name, value)
    data = load_data(DataConfig(source="cifar10", path=str(tmp_path)), seed=0)
    assert (len(data.train), len(present(data.validation)), len(data.test)) == (90, 10, 20)
    assert data.input_shape == (3, 32, 32)
    assert data.classes[3] == "class 3"
    # the archive's rows are channel planes, row by row
    batch = pickle.loads((tmp_path / CIFAR10.base_folder / "test_batch").read_bytes())
    np.testing.assert_array_equal(data.test.images[7], batch["data"][7].reshape(3, 32, 32))


def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CIFAR10, "url", (tmp_path / "absent.tar.gz").as_uri())
    with pytest.raises(DataError, match=r"cannot download cifar10 to .*cifar.*put the file into"):
        load_data(DataConfig(source="cifar10", path=str(tmp_path / "cifar")), seed=0)
