from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional

from ecd_deploy.data import DataSplits, load_data
from ecd_deploy.data.imagefolder.decode import ImageShape, decode_into
from ecd_deploy.data.resize import Framing
from ecd_deploy.errors import DataError
from ecd_deploy.recipe.data import DataConfig
from tests.small import present

CLASSES = ("cat", "dog", "fox")


def save(path: Path, seed: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    channels = () if mode == "L" else (3,)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels, mode).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    seed = 0
    for split, count in (("train", 6), ("test", 2)):
        for name in CLASSES:
            for number in range(count):
                save(tmp_path / split / name / f"{number}.png", seed)
                seed += 1
    return tmp_path


def load(root: Path, image_size: int | None = None, train_limit: int | None = None) -> DataSplits:
    config = DataConfig(
        source="imagefolder",
        path=str(root),
        image_size=image_size,
        train_limit=train_limit,
        cache_dir=str(root / ".cache"),
        validation_fraction=0.34,
    )
    return load_data(config, seed=0)


def test_images_get_the_labels_of_their_folders(root: Path) -> None:
    data = load(root)
    assert data.classes == CLASSES
    assert (len(data.train), len(present(data.validation)), len(data.test)) == (12, 6, 6)
    assert data.input_shape == (3, 8, 8)
    expected = np.asarray(Image.open(root / "test" / "dog" / "1.png")).transpose(2, 0, 1)
    np.testing.assert_array_equal(data.test.images[3], expected)
    assert data.test.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_val_serves_where_there_is_no_test(root: Path) -> None:
    expected = load(root)
    (root / "test").rename(root / "val")
    assert load(root).digest == expected.digest


def test_hidden_files_and_folders_are_ignored(root: Path) -> None:
    expected = load(root)
    (root / "train" / ".ipynb_checkpoints").mkdir()
    (root / "train" / "cat" / ".DS_Store").write_bytes(b"no image")
    save(root / "train" / "cat" / ".cache" / "0.png", 99)
    assert load(root).digest == expected.digest


def test_grey_stays_one_channel_only_if_all_are_grey(root: Path) -> None:
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        save(path, number, mode="L")
    assert load(root).in_channels == 1
    save(root / "test" / "fox" / "0.png", 0)
    data = load(root)
    assert data.in_channels == 3
    assert np.array_equal(data.train.images[:, 0], data.train.images[:, 2])


@pytest.mark.parametrize("missing", ["", "train", "test"])
def test_a_missing_folder_is_named(root: Path, missing: str) -> None:
    shutil.rmtree(root / missing)
    with pytest.raises(DataError, match=missing or str(root)):
        load(root)


def test_classes_that_differ_are_named(root: Path) -> None:
    (root / "test" / "dog").rename(root / "test" / "wolf")
    with pytest.raises(DataError, match="only in train/: dog; only in test/: wolf"):
        load(root)


def test_an_empty_class_is_named(root: Path) -> None:
    (root / "train" / "ape").mkdir()
    with pytest.raises(DataError, match="classes without images: ape"):
        load(root)


def test_sizes_that_differ_need_an_image_size(root: Path) -> None:
    save(root / "train" / "fox" / "5.png", 0, (12, 9))
    with pytest.raises(DataError, match=r"8x8.*fox/5\.png is 12x9; set data\.image_size"):
        load(root)
    assert load(root, image_size=6).input_shape == (3, 6, 6)


@pytest.mark.parametrize("shorter_side", [6, 7, 8, 11])
@pytest.mark.parametrize("size", [(8, 8), (13, 9), (9, 14), (40, 21), (5, 7)])
def test_resizing_equals_torchvisions(tmp_path: Path, size: tuple[int, int], shorter_side: int) -> None:
    save(tmp_path / "a.png", 1, size)
    images = np.empty((1, 3, 6, 6), dtype=np.uint8)
    assert decode_into([tmp_path / "a.png"], [0], ImageShape(3, 6, 6, Framing.of(6, shorter_side)), images) == []
    reference = functional.center_crop(functional.resize(Image.open(tmp_path / "a.png"), shorter_side), [6, 6])
    np.testing.assert_array_equal(images[0], np.asarray(reference).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("fill", "cut"), [((6, 10), (6, 10)), ((9, 10), (6, 10)), ((7, 5), (4, 5)), ((12, 12), (6, 9))]
)
@pytest.mark.parametrize("size", [(8, 8), (13, 9), (9, 14), (40, 21), (5, 7), (30, 18)])
def test_a_size_is_filled_by_the_least_scaling_that_does(
    tmp_path: Path, size: tuple[int, int], fill: tuple[int, int], cut: tuple[int, int]
) -> None:
    save(tmp_path / "a.png", 1, size)
    images = np.empty((1, 3, *cut), dtype=np.uint8)
    assert decode_into([tmp_path / "a.png"], [0], ImageShape(3, *cut, Framing.of(cut, fill)), images) == []
    scale = max(Fraction(fill[0], size[1]), Fraction(fill[1], size[0]))
    scaled = functional.resize(Image.open(tmp_path / "a.png"), [int(scale * size[1]), int(scale * size[0])])
    np.testing.assert_array_equal(images[0], np.asarray(functional.center_crop(scaled, list(cut))).transpose(2, 0, 1))


def test_a_limit_takes_classes_evenly(root: Path) -> None:
    data = load(root, train_limit=9)
    labels = np.concatenate([data.train.labels, present(data.validation).labels])
    assert np.bincount(labels).tolist() == [3, 3, 3]


def test_the_digest_sees_pixels_labels_and_class_names(root: Path) -> None:
    first = load(root).digest
    assert load(root).digest == first
    save(root / "test" / "cat" / "0.png", 12345)
    second = load(root).digest
    assert second != first
    for split in ("train", "test"):
        (root / split / "cat").rename(root / split / "car")
    assert load(root).digest not in (first, second)
