from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.gpu.pack import STUDY, pack, verify
from benchmarks.gpu.packed import read_data
from ecd_deploy.data import DataSplits, load_data
from ecd_deploy.errors import ArtefactError, DataError, DigestError
from ecd_deploy.pipelines.study.study import load_study, recipe_of
from ecd_deploy.recipe.data import DataConfig

SIDE = 8
CLASSES = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    draw = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 4)):
        for label in range(CLASSES):
            (root / split / f"class-{label}").mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / f"class-{label}" / f"{number:02d}.png")
    return root


@pytest.fixture(scope="module")
def packed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed")
    pack(folder, out)
    return out


def _of_folder(folder: Path, cache: Path, *, few: bool) -> DataSplits:
    """What a run reads from the folder: all of it, or what the study of few images trains on with seed 0."""
    study = load_study(STUDY)
    chosen = recipe_of(study, study.arm(study.baseline), seed=0).data if few else None
    config = DataConfig(
        source="imagefolder",
        path=str(folder),
        cache_dir=str(cache),
        train_limit=chosen.train_limit if chosen else None,
        validation_fraction=chosen.validation_fraction if chosen else 0.0,
    )
    return load_data(config, seed=0)


@pytest.mark.parametrize("few", [True, False])
def test_packed_images_are_those_of_the_folder(folder: Path, packed: Path, tmp_path: Path, few: bool) -> None:
    expected = _of_folder(folder, tmp_path, few=few)
    found = read_data(packed, few=few, config=DataConfig(source="cifar100"))
    assert found.classes == expected.classes
    for ours, theirs in ((found.train, expected.train), (found.test, expected.test)):
        assert np.array_equal(ours.images, theirs.images)
        assert np.array_equal(ours.labels, theirs.labels)
    assert len(found.train) == (54 if few else 60)


def test_the_same_images_give_the_same_bytes(folder: Path, packed: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in packed.iterdir()
    }


def test_other_images_than_were_packed_are_refused(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path)
    (tmp_path / "rest-1.zip").write_bytes((tmp_path / "rest-2.zip").read_bytes())
    with pytest.raises(ArtefactError, match=r"rest-1\.zip"):
        verify(tmp_path)
    (tmp_path / "rest-1.zip").unlink()
    with pytest.raises(ArtefactError, match=r"rest-1\.zip"):
        read_data(tmp_path, few=False, config=DataConfig(source="cifar100"))
    read_data(tmp_path, few=True, config=DataConfig(source="cifar100"))


def test_a_changed_pixel_is_noticed(folder: Path, tmp_path: Path) -> None:
    manifest = pack(folder, tmp_path)
    wrong = manifest.parts[0].model_copy(update={"sha256": "0" * 64})
    (tmp_path / "manifest.json").write_text(
        manifest.model_copy(update={"parts": (wrong, *manifest.parts[1:])}).model_dump_json()
    )
    with pytest.raises(DigestError, match="not what was packed"):
        verify(tmp_path)


def test_an_empty_folder_is_told_how_to_be_filled(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"python -m benchmarks\.gpu pack"):
        verify(tmp_path)


def test_grey_images_are_refused(tmp_path: Path) -> None:
    shades = iter(range(256))
    for split in ("train", "test"):
        for label in range(CLASSES):
            folder = tmp_path / split / f"class-{label}"
            folder.mkdir(parents=True)
            for number in range(2):
                Image.new("L", (SIDE, SIDE), next(shades)).save(folder / f"{number}.png")
    with pytest.raises(DataError, match="in colour"):
        pack(tmp_path, tmp_path / "out")
