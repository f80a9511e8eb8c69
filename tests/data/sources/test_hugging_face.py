"""Data sets of the library `datasets`, written by itself, are read as a folder of the same images is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecd_deploy.data import DataSplits, load_data
from ecd_deploy.errors import DataError, UsageError
from ecd_deploy.recipe.data import DataConfig
from tests.commands import run_command
from tests.data.imagefolder.folders import CLASSES, make_folders
from tests.data.sources.hub import serve
from tests.without import run_without

SPLITS = ("train", "validation", "test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_folders(tmp_path / "images", ("train", "val", "test"))
    return tmp_path


def content(folder: Path, split: str, image: str = "image", label: str = "label") -> dict[str, list[Any]]:
    files = sorted((folder / "images" / split).rglob("*.png"))
    numbers = [CLASSES.index(file.parent.name) for file in files]
    return {image: [str(file) for file in files], label: numbers, "camera": [number % 2 for number in numbers]}


def dataset(columns: Mapping[str, list[Any]], image: str = "image", label: str = "label") -> Any:
    from datasets import ClassLabel, Dataset, Features, Image, Value

    features = Features({image: Image(), label: ClassLabel(names=list(CLASSES)), "camera": Value("int64")})
    return Dataset.from_dict(dict(columns), features=features)


def save(folder: Path, image: str = "image", label: str = "label") -> Path:
    from datasets import DatasetDict

    splits = zip(SPLITS, ("train", "val", "test"), strict=True)
    parts = {name: dataset(content(folder, split, image, label), image, label) for name, split in splits}
    DatasetDict(parts).save_to_disk(folder / "saved")
    return folder / "saved"


def load(source: str, path: Path | str | None, folder: Path, **options: object) -> DataSplits:
    fields = {"source": source, "path": path and str(path), "cache_dir": str(folder / "cache"), **options}
    return load_data(DataConfig.model_validate(fields), seed=0)


@pytest.mark.needs("datasets")
@pytest.mark.parametrize(("image", "label"), [("image", "label"), ("img", "fine")])
def test_the_images_are_those_of_the_folder(folder: Path, image: str, label: str) -> None:
    saved = save(folder, image, label)
    expected = load("imagefolder", folder / "images", folder)
    found = load("datasets", saved, folder)
    assert found.digest == expected.digest
    assert found.test_columns == {"camera": tuple("001100")}
    unpacked = sorted((folder / "cache").glob("*.images/*"))
    times = [file.stat().st_mtime_ns for file in unpacked]
    again = load("datasets", saved, folder, loading="files", image_size=8)
    np.testing.assert_array_equal(again.test.images, expected.test.images)
    assert [file.stat().st_mtime_ns for file in unpacked] == times  # once is enough


# What a reader does in a process of its own, for the clients read their settings once.
READ = """
import sys
from ecd_deploy.data import load_data
from ecd_deploy.recipe.data import DataConfig
data = load_data(DataConfig(source="hub:shop/pets", path="downloads", cache_dir="cache"), seed=0)
print(data.digest, *data.classes)
"""


def read_hub(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HOME": str(folder / "home"), "PYTHONPATH": os.pathsep.join(sys.path), **settings}
    command = [sys.executable, "-c", READ]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.needs("datasets")
def test_a_data_set_of_the_hub_is_downloaded_once(folder: Path) -> None:
    """By the hub's own clients from a server in its layout; afterwards from their cache."""
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        file = folder / "hub" / "data" / f"{name}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        dataset(content(folder, split)).to_parquet(str(file))
    (folder / "hub" / "README.md").write_text("---\nlicense: cc0-1.0\n---\n# Pets\n")
    expected = load("imagefolder", folder / "images", folder)
    with serve("shop/pets", folder / "hub") as address:
        first = read_hub(folder, HF_ENDPOINT=address)
    assert first.stdout.split() == [expected.digest, *CLASSES], first.stderr
    assert list((folder / "downloads").iterdir())
    again = read_hub(folder, HF_HUB_OFFLINE="1")
    assert again.stdout == first.stdout, again.stderr


@pytest.mark.needs("datasets")
def test_a_data_set_that_the_hub_does_not_have_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(folder / "home"))
    settings = ("--set", "data.source=hub:shop/cars", "--set", "data.cache_dir=cache", "--no-rehearsal")
    with serve("shop/pets", folder) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        ended = run_command(["run", "digits", "--out", "run", *settings], cwd=folder, fresh=True)
    assert ended.code == 4, ended.err
    assert ended.err.startswith("Error: shop/cars cannot be read as a data set: ")
    assert len(ended.err.splitlines()) == 1
    assert not (folder / "run").exists()


@pytest.mark.needs("datasets")
def test_what_cannot_be_used_is_told_in_one_line(folder: Path) -> None:
    from datasets import Dataset

    def refused(columns: Mapping[str, list[Any]], message: str) -> None:
        path = folder / f"saved {len(list(folder.iterdir()))}"
        Dataset.from_dict(dict(columns)).save_to_disk(path)
        with pytest.raises(DataError, match=message) as error:
            load("datasets", path, folder)
        assert "\n" not in str(error.value)

    files = content(folder, "train")["image"]
    refused(
        {"text": ["a"], "label": ["b"]}, r"has no column 'image', and 0 of the type Image; its columns are text, label"
    )
    refused(
        {"image": files, "kind": ["a"] * 18}, r"has no column 'label', and 0 of the type ClassLabel; its columns are"
    )
    refused({"image": files, "label": ["a"] * 18}, r"has no column 'split', which says train, validation or test")
    refused({"image": files, "label": ["a", None] * 9}, r", row 1: label None is no class")
    refused({"image": [files[0], None], "label": ["a", "b"]}, r", row 1: there is no image")
    refused({"image": [3, 4], "label": ["a", "b"]}, r"cannot be read as a data set: ")
    for path in (folder / "none", folder / "images"):
        with pytest.raises(DataError, match=r"cannot be read as a data set: "):
            load("datasets", path, folder)
    assert not list((folder / "cache").glob(".*partial"))


@pytest.mark.needs("datasets")
def test_a_run_counts_its_classes_before_it_is_trained(folder: Path) -> None:
    save(folder)
    changes = ("data.source=datasets", f"data.path={folder / 'saved'}", "data.image_size=8", "data.cache_dir=cache")
    settings = [word for change in changes for word in ("--set", change)]
    ended = run_command(["inspect", "digits", *settings, "--no-rehearsal"], cwd=folder)
    assert ended.code == 0, ended.err
    assert "3 classes" in ended.out


def test_without_the_library_the_extra_is_named(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from ecd_deploy.data.sources.hugging_face import read_folder\n"
        "try:\n    read_folder(Path('x'), Path('.'))\n"
        "except Exception as error:\n    print(type(error), error)\n"
    )
    ended = run_without(["datasets"], code, [], cwd=tmp_path)
    assert UsageError.__name__ in ended.out
    assert "pip install 'ecd-deploy[datasets]'" in ended.out
