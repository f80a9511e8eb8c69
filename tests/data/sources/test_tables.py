"""A CSV file names the images, and is read as a folder of the same images is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecd_deploy.data import DataSplits, load_data
from ecd_deploy.errors import DataError
from ecd_deploy.recipe.data import DataConfig
from tests.commands import run_command
from tests.data.imagefolder.folders import make_folders
from tests.small import present

HEADER = "path,label,split,camera\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`train/`, `val/` and `test/` of three classes, and beside them the same as a CSV file, in another order."""
    make_folders(tmp_path / "images", ("train", "val", "test"))
    files = sorted((tmp_path / "images").rglob("*.png"))
    rows = [
        f"{file.relative_to(tmp_path)},{file.parent.name},{file.parents[1].name},{number % 2}\n"
        for number, file in enumerate(files)
    ]
    np.random.default_rng(0).shuffle(rows)
    (tmp_path / "images.csv").write_text(HEADER + "".join(rows))
    return tmp_path


def load(source: str, path: Path, **options: object) -> DataSplits:
    fields = {"source": source, "path": str(path), "cache_dir": str(path.parent / "cache"), **options}
    return load_data(DataConfig.model_validate(fields), seed=0)


@pytest.mark.parametrize("options", [{}, {"loading": "files", "image_size": 6}], ids=["cache", "files"])
def test_the_images_are_those_of_the_folder(folder: Path, options: dict[str, object]) -> None:
    listed = load("imagefolder", folder / "images", **options)
    found = load("csv", folder / "images.csv", **options)
    assert found.classes == listed.classes == ("cat", "dog", "fox")
    for ours, theirs in ((found.train, listed.train), (found.validation, listed.validation), (found.test, listed.test)):
        np.testing.assert_array_equal(present(ours).images, present(theirs).images)
        np.testing.assert_array_equal(present(ours).labels, present(theirs).labels)
    if not options:
        assert found.digest == listed.digest


def test_without_validation_rows_some_are_cut_off(folder: Path) -> None:
    table = folder / "images.csv"
    table.write_text("".join(line for line in table.read_text().splitlines(keepends=True) if ",val," not in line))
    found = load("csv", table, validation_fraction=0.34)
    assert (len(found.train), len(present(found.validation)), len(found.test)) == (12, 6, 6)


def test_paths_may_be_relative_and_absolute_and_lie_anywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = folder / "tables" / "deep"
    elsewhere.mkdir(parents=True)
    expected = load("csv", folder / "images.csv")
    lines = (folder / "images.csv").read_text().splitlines()
    for count, prefix in enumerate(("../../", f"{folder}/")):
        table = elsewhere / f"{count}.csv"
        table.write_text("\n".join([lines[0], *(prefix + line for line in lines[1:])]))
        assert load("csv", table).digest == expected.digest
    for place, path in ((folder, "images.csv"), (folder.parent, f"{folder.name}/images.csv")):
        monkeypatch.chdir(place)
        assert load("csv", Path(path)).digest == expected.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\nimages/train/cat/0.png,cat\n", "images.csv has no column 'split', which says train, val"),
        ("path,split\na.png,train\n", "images.csv has no column 'label' in its first line; its"),
        (HEADER + "a.png,cat,train\n", "images.csv, line 2: 3 values for 4 columns"),
        (HEADER + "a.png,cat,train,0\na.png,cat,test,0\n", "images.csv names a.png twice"),
        (HEADER + "a.png,cat,trian,0\n", "images.csv: split 'trian' is none of train, val, valid, validation, test"),
        (HEADER + "a.png,cat,train,0\n", "images.csv has no image whose split is test"),
        (
            HEADER + "a.png,cat,train,0\nb.png,dog,train,0\nc.png,cat,test,0\nd.png,fox,test,0\n",
            "the classes of images.csv differ; only in train: dog; only in test: fox",
        ),
        (HEADER + "a.png,cat,train,0\nb.png,cat,test,0\n", "images.csv has one class only, cat: two or"),
        ("", "images.csv has no column 'path' in its first line; its columns are none"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_is_told_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "images.csv").write_text(text)
    ended = run_command(
        ["rehearse", "digits", "--set", "data.source=csv", "--set", "data.path=images.csv"], cwd=tmp_path
    )
    assert (ended.code, ended.out) == (4, "")
    assert ended.err.startswith(f"Error: {message}")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("options", [{}, {"loading": "files", "image_size": 8}], ids=["cache", "files"])
def test_other_columns_stay_with_the_test_images(folder: Path, options: dict[str, object]) -> None:
    table = folder / "images.csv"
    lines = table.read_text().splitlines()
    shots = [line.split(",") for line in lines[1:]]
    table.write_text("\n".join([f"{lines[0]},file", *(f"{','.join(shot)},{shot[0]}" for shot in shots)]))
    (folder / "images/test/dog/0.png").write_bytes(b"no image")
    found = load("csv", table, skip_bad=True, test_limit=5, **options)
    assert sorted(found.test_columns) == ["camera", "file"]
    cameras = {shot[0]: shot[3] for shot in shots}
    columns = found.test_columns["file"], found.test_columns["camera"]
    for pixels, file, camera in zip(found.test.images, *columns, strict=True):
        np.testing.assert_array_equal(pixels, np.asarray(Image.open(folder / file)).transpose(2, 0, 1))
        assert camera == cameras[file]


@pytest.mark.slow
def test_the_gate_of_a_run_has_limits_for_slices(folder: Path) -> None:
    (folder / "recipe.toml").write_text("""
name = "shelf"
data = { source = "csv", path = "images.csv", cache_dir = "cache" }
student = { name = "resnet8" }
method = { name = "plain" }
train = { epochs = 1, batch_size = 8 }
profile = { min_seconds = 0.1, warmup_seconds = 0.0 }
export = { formats = ["onnx"] }
gate = { slices.camera = { min_top1 = 0.9 } }
""")
    ended = run_command(["run", "recipe.toml", "--out", "run"], cwd=folder)
    assert ended.code in {1, 3}, ended.err
    checks = {check["name"] for check in json.loads((folder / "run/gate.json").read_text())["checks"]}
    assert {"slices.camera.0.min_top1", "slices.camera.1.min_top1"} <= checks
    again = run_command(["gate", "run"], cwd=folder)  # from what the run directory holds
    assert again.code == ended.code
    assert ended.err.endswith(again.err)
    refused = run_command(["rehearse", "recipe.toml", "--set", "gate.slices.camra.min_top1=0.9"], cwd=folder)
    assert refused.code == 2
    assert "gate.slices.\"camra\": there is no such column (did you mean 'camera'?); there are camera" in refused.err


def test_a_file_that_is_not_there_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "images/test/fox")
    with pytest.raises(DataError, match=r"2 image\(s\) cannot be used:\n.*test/fox/0.png: not a file\n"):
        load("csv", folder / "images.csv")
    with pytest.raises(DataError, match=r"absent.csv cannot be read as a CSV file in UTF-8: .*No such file"):
        load("csv", folder / "absent.csv")


def test_inspect_counts_the_classes_of_the_table(folder: Path) -> None:
    settings = ["data.source=csv", "data.path=images.csv", "data.image_size=8"]
    words = [word for setting in settings for word in ("--set", setting)]
    ended = run_command(["inspect", "digits", "--no-rehearsal", *words], cwd=folder)
    assert ended.code == 0, ended.err
    assert "3 classes" in ended.out
