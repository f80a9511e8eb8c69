"""Data sets of torchvision, read by its own classes from files in its own layout."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets import SVHN, Food101

from ecd_deploy.data import load_data
from ecd_deploy.errors import DataError, UsageError
from ecd_deploy.recipe.data import DataConfig
from tests.small import present


def noise(seed: int, *shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_mnist(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for seed, (name, count) in enumerate((("train", 40), ("t10k", 20))):
        images, labels = noise(seed, count, 28, 28), np.arange(count, dtype=np.uint8) % 10
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, count, 28, 28) + images.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, count) + labels.tobytes())
    data = load_data(DataConfig(source="torchvision:MNIST", path=str(tmp_path), validation_fraction=0.25), seed=0)
    assert (len(data.train), len(present(data.validation)), len(data.test)) == (30, 10, 20)
    assert data.input_shape == (1, 28, 28)
    assert data.classes[3] == "3 - three"
    np.testing.assert_array_equal(data.test.images[:, 0], noise(1, 20, 28, 28))
    framed = load_data(DataConfig(source="torchvision:MNIST", path=str(tmp_path), image_size=14, resize=16), seed=0)
    assert framed.input_shape == (1, 14, 14)


def test_a_set_without_names_of_its_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {}
    for seed, split in enumerate(("train", "test")):
        content = {"X": noise(seed, 32, 32, 3, 20), "y": (np.arange(20) % 10 + 1)[:, None]}
        file = tmp_path / f"{split}_32x32.mat"
        scipy.io.savemat(file, content)
        listed[split] = ["unreachable", file.name, None]
    monkeypatch.setattr(SVHN, "split_list", listed)
    data = load_data(DataConfig(source="torchvision:SVHN", path=str(tmp_path)), seed=0)
    assert data.input_shape == (3, 32, 32)
    assert data.classes == tuple(map(str, range(10)))
    np.testing.assert_array_equal(data.test.images, noise(1, 32, 32, 3, 20).transpose(3, 2, 0, 1))
    assert data.test.labels[9] == 0  # a ten is a zero


def photographs(root: Path) -> None:
    """Food101's layout, with two classes of images of two sizes."""
    base = root / "food-101"
    (base / "meta").mkdir(parents=True)
    for split, numbers in (("train", range(6)), ("test", range(6, 8))):
        text = {name: [f"{name}/{number}" for number in numbers] for name in ("apple_pie", "waffles")}
        (base / "meta" / f"{split}.json").write_text(str(text).replace("'", '"'))
        for place, path in enumerate(sorted(path for paths in text.values() for path in paths)):
            file = base / "images" / f"{path}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise(place + 100 * (split == "test"), 20 + place % 2, 30, 3)).save(file)


def test_photographs_of_many_sizes_need_one(tmp_path: Path) -> None:
    photographs(tmp_path)
    with pytest.raises(DataError, match=r"the images of torchvision:Food101 have 2 sizes: set data.image_size"):
        load_data(DataConfig(source="torchvision:Food101", path=str(tmp_path)), seed=0)
    config = DataConfig(source="torchvision:Food101", path=str(tmp_path), image_size=12, resize=16)
    data = load_data(config.model_copy(update={"validation_fraction": 0.0}), seed=0)
    assert data.input_shape == (3, 12, 12)
    assert data.classes == ("apple_pie", "waffles")
    assert (len(data.train), len(data.test)) == (12, 4)


def test_what_torchvision_does_not_have_is_told_with_the_choices() -> None:
    config = DataConfig(source="torchvision:Food10")
    with pytest.raises(UsageError, match=r"no 'torchvision:Food10' \(did you mean 'Food101'\?\); names are CIFAR10, "):
        load_data(config, seed=0)


def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Food101, "_URL", (tmp_path / "absent.tar.gz").as_uri())
    with pytest.raises(DataError, match=r"cannot download torchvision:Food101 to .*put its files into"):
        load_data(DataConfig(source="torchvision:Food101", path=str(tmp_path / "data")), seed=0)
