"""Parquet files, by pyarrow, are read as a folder of the same images is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ecd_deploy.data import DataSplits, load_data
from ecd_deploy.errors import DataError, UsageError
from ecd_deploy.recipe.data import DataConfig
from tests.data.imagefolder.folders import CLASSES, make_folders
from tests.small import present
from tests.without import run_without

Rows = list[dict[str, object]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_folders(tmp_path / "images", ("train", "val", "test"))
    return tmp_path


def rows(folder: Path, *, as_bytes: bool) -> Rows:
    return [
        {
            **({"image": file.read_bytes()} if as_bytes else {"path": str(file.relative_to(folder))}),
            "label": file.parent.name,
            "split": file.parents[1].name,
        }
        for file in sorted((folder / "images").rglob("*.png"))
    ]


def write(path: Path, content: Rows, metadata: dict[str, str] | None = None) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(content).replace_schema_metadata(metadata), path)


def load(source: str, path: Path, cache: Path, **options: object) -> DataSplits:
    fields = {"source": source, "path": str(path), "cache_dir": str(cache), **options}
    return load_data(DataConfig.model_validate(fields), seed=0)


@pytest.mark.needs("pyarrow")
@pytest.mark.parametrize("as_bytes", [False, True], ids=["paths", "bytes"])
def test_the_images_are_those_of_the_folder(folder: Path, as_bytes: bool) -> None:
    write(folder / "images.parquet", rows(folder, as_bytes=as_bytes))
    expected = load("imagefolder", folder / "images", folder / "cache")
    assert load("parquet", folder / "images.parquet", folder / "cache").digest == expected.digest
    if as_bytes:
        unpacked = sorted((folder / "cache").glob("*.images/*"))
        times = [file.stat().st_mtime_ns for file in unpacked]
        assert load("parquet", folder / "images.parquet", folder / "cache").digest == expected.digest
        assert [file.stat().st_mtime_ns for file in unpacked] == times  # once is enough
        found = load("parquet", folder / "images.parquet", folder / "cache", loading="files", image_size=8)
        np.testing.assert_array_equal(found.test.images, expected.test.images)


@pytest.mark.needs("pyarrow")
@pytest.mark.parametrize("as_bytes", [False, True], ids=["paths", "bytes"])
def test_relative_paths_lead_to_the_same(folder: Path, as_bytes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "images.parquet", rows(folder, as_bytes=as_bytes))
    expected = load("parquet", folder / "images.parquet", folder / "cache")
    monkeypatch.chdir(folder.parent)
    assert load("parquet", Path(folder.name, "images.parquet"), Path("cache")).digest == expected.digest
    monkeypatch.chdir(folder)
    assert load("parquet", Path("images.parquet"), Path("cache")).digest == expected.digest


@pytest.mark.needs("pyarrow")
def test_a_data_set_of_the_hugging_face_hub_is_read_as_it_lies_there(folder: Path) -> None:
    names = ["fox", "cat", "dog"]  # a number is a place in these
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    every = rows(folder, as_bytes=True)
    for split, file in (
        ("train", "train-00000-of-00002"),
        ("val", "validation-00000-of-00001"),
        ("test", "test-00000"),
    ):
        content: Rows = [
            {"image": {"bytes": row["image"], "path": None}, "label": names.index(str(row["label"]))}
            for row in every
            if row["split"] == split
        ]
        parts = (content[::2], content[1::2]) if split == "train" else (content,)
        for number, part in enumerate(parts):
            write(folder / "hub" / "data" / f"{file.replace('00000', f'0000{number}', 1)}.parquet", part, metadata)
    found = load("parquet", folder / "hub", folder / "cache")
    assert found.classes == CLASSES
    assert (len(found.train), len(present(found.validation)), len(found.test)) == (18, 6, 6)
    expected = load("imagefolder", folder / "images", folder / "cache")
    np.testing.assert_array_equal(found.test.images, expected.test.images)
    np.testing.assert_array_equal(found.test.labels, expected.test.labels)


@pytest.mark.needs("pyarrow")
def test_what_cannot_be_used_is_told_in_one_line(folder: Path) -> None:
    path, cache = folder / "images.parquet", folder / "cache"
    good = rows(folder, as_bytes=True)

    def refused(content: Rows, message: str) -> None:
        write(path, content)
        with pytest.raises(DataError, match=message) as error:
            load("parquet", path, cache)
        assert "\n" not in str(error.value)

    refused([{"image": b"x", "split": "train"}], r"has no column 'label'; its columns are image, split")
    refused([{"label": "a", "split": "train"}], r"has no column 'image' or 'path'; its columns are label, split")
    refused([{"image": b"x", "label": "a"}], r"has no column 'split', which says train, validation or test")
    refused([*good, {"image": b"x", "label": None, "split": "train"}], r"row 30: label None is no class")
    refused([*good, {"image": None, "label": "cat", "split": "train"}], r"row 30: column 'image' holds no bytes of an")
    path.write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"images.parquet cannot be read as a Parquet file: "):
        load("parquet", path, cache)
    with pytest.raises(DataError, match=r"holds no Parquet file \(\*\.parquet\)"):
        load("parquet", folder / "images", cache)
    write(folder / "images" / "first.parquet", good)
    with pytest.raises(DataError, match=r"first.parquet begins with none of train, val, valid, validation, test"):
        load("parquet", folder / "images", cache)
    assert not list(cache.glob(".*partial"))


def test_without_pyarrow_the_extra_is_named(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from ecd_deploy.data.sources.parquet import read_parquet\n"
        "try:\n    read_parquet(Path('x.parquet'), Path('.'))\n"
        "except Exception as error:\n    print(type(error), error)\n"
    )
    ended = run_without(["pyarrow"], code, [], cwd=tmp_path)
    assert UsageError.__name__ in ended.out
    assert "pip install 'ecd-deploy[parquet]'" in ended.out
