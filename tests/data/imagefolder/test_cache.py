from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecd_deploy.data.imagefolder import cache
from ecd_deploy.data.imagefolder.cache import DecodedImages, default_cache_folder, open_decoded
from ecd_deploy.data.resize import Framing


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    draw = np.random.default_rng(0)
    paths = [tmp_path / "images" / f"{number}.png" for number in range(5)]
    paths[0].parent.mkdir()
    for path in paths:
        Image.fromarray(draw.integers(0, 256, (4, 6, 3), dtype=np.uint8)).save(path)
    return paths


def open_in(
    tmp_path: Path,
    files: list[Path],
    image_size: int | tuple[int, int] | None = None,
    resize: int | tuple[int, int] | None = None,
) -> DecodedImages:
    framing = None if image_size is None else Framing.of(image_size, resize)
    return open_decoded(tmp_path, files, framing, tmp_path / "cache")


def entries(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "cache").iterdir() if path.is_dir())


def same(found: DecodedImages, files: list[Path]) -> bool:
    expected = np.stack([np.asarray(Image.open(path)).transpose(2, 0, 1) for path in files])
    return np.array_equal(found.images, expected)


def test_images_are_decoded_once(tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert same(open_in(tmp_path, files), files)
    monkeypatch.setattr(cache, "_build", None)  # it would be called
    found = open_in(tmp_path, files)
    assert same(found, files)
    assert isinstance(found.images, np.memmap)
    found.images[0] = 0  # of this process alone
    assert same(open_in(tmp_path, files), files)


def test_a_change_of_files_or_size_is_another_entry(tmp_path: Path, files: list[Path]) -> None:
    open_in(tmp_path, files)
    Image.new("RGB", (6, 4), "red").save(files[2])
    assert same(open_in(tmp_path, files), files)
    assert len(entries(tmp_path)) == 2
    os.utime(files[2], ns=(0, 0))
    open_in(tmp_path, files)
    assert len(entries(tmp_path)) == 3
    assert open_in(tmp_path, files, image_size=3).images.shape == (5, 3, 3, 3)
    assert same(open_in(tmp_path, files[:3]), files[:3])


def test_another_shorter_side_is_another_entry_and_that_of_the_square_is_none(
    tmp_path: Path, files: list[Path]
) -> None:
    straight = open_in(tmp_path, files, image_size=3)
    names = entries(tmp_path)
    assert np.array_equal(open_in(tmp_path, files, image_size=3, resize=3).images, straight.images)
    assert entries(tmp_path) == names
    wider = open_in(tmp_path, files, image_size=3, resize=4)
    assert wider.images.shape == straight.images.shape
    assert not np.array_equal(wider.images, straight.images)
    # four pixels high already: the middle is cut out of what is there
    expected = np.stack([np.asarray(Image.open(path))[0:3, 2:5].transpose(2, 0, 1) for path in files])
    assert np.array_equal(wider.images, expected)
    assert len(entries(tmp_path)) == 2
    for number, (size, fill) in enumerate((((3, 4), (3, 4)), ((4, 3), (4, 3)), ((3, 4), (4, 6))), start=3):
        assert open_in(tmp_path, files, size, fill).images.shape == (5, 3, *size)
        assert len(entries(tmp_path)) == number


@pytest.mark.parametrize("name", ["images.u8", "index.json"])
def test_a_damaged_entry_is_built_anew(
    tmp_path: Path, files: list[Path], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    open_in(tmp_path, files)
    path = entries(tmp_path)[0] / name
    flipped = bytearray(path.read_bytes())
    flipped[len(flipped) // 2] ^= 128
    path.write_bytes(flipped)
    assert same(open_in(tmp_path, files), files)
    assert "built anew" in caplog.text
    path.unlink()
    assert same(open_in(tmp_path, files), files)


def test_without_a_place_to_write_images_are_decoded_into_memory(
    tmp_path: Path, files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("in the way")
    assert same(open_in(tmp_path, files), files)
    assert "cannot be written" in caplog.text


def test_a_killed_builder_leaves_nothing_behind(tmp_path: Path, files: list[Path]) -> None:
    open_in(tmp_path, files)
    entry = entries(tmp_path)[0]
    shutil.move(entry, entry.with_name(f".{entry.name}.00aa.partial"))
    assert same(open_in(tmp_path, files), files)
    assert [path.name for path in entries(tmp_path)] == [entry.name]


@pytest.mark.usefixtures("files")
def test_processes_share_one_entry(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ecd_deploy.data.imagefolder import cache; root = Path(sys.argv[1]);"
        "build = cache._build; cache._build = lambda *a: (print('built'), build(*a));"
        "print(cache.open_decoded(root, sorted((root / 'images').iterdir()), None, root / 'cache').images.sum())"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0].split() for process in processes]
    assert sorted(len(output) for output in outputs) == [1, 2]
    assert outputs[0][-1] == outputs[1][-1]


def test_the_default_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "ecd-deploy"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_folder() == Path.home() / ".cache" / "ecd-deploy"
