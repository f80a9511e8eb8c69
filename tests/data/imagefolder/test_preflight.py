"""Image files as users have them: damaged, unusual, or made to do harm."""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from ecd_deploy.data import DataSplits, load_data
from ecd_deploy.errors import DataError
from ecd_deploy.recipe.data import DataConfig
from tests.small import present

CLASSES = ("cat", "dog", "fox")
SIDE = 8


@pytest.fixture
def root(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 2)):
        for name in CLASSES:
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.png")
    return tmp_path


def load(root: Path, *, skip_bad: bool = False) -> DataSplits:
    config = DataConfig(
        source="imagefolder",
        path=str(root),
        validation_fraction=0.34,
        cache_dir=str(root / ".cache"),
        skip_bad=skip_bad,
        max_test_overlap=1,
    )
    return load_data(config, seed=0)


def png_of_zeros(width: int, height: int) -> bytes:
    """A small file of many pixels: 1 bit each, all zero."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes((1 + (width + 7) // 8) * height), 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def html(path: Path) -> None:
    path.write_text("<!doctype html><title>404</title>")


def pixel_bomb(path: Path) -> None:
    path.write_bytes(png_of_zeros(12_000, 10_000))


def huge_pixel_bomb(path: Path) -> None:
    path.write_bytes(png_of_zeros(20_000, 20_000))


def sixteen_bits(path: Path) -> None:
    Image.fromarray(np.full((SIDE, SIDE), 40_000, dtype=np.uint16)).save(path)


def floating(path: Path) -> None:
    Image.fromarray(np.full((SIDE, SIDE), 0.5, dtype=np.float32)).save(path, format="TIFF")


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.png")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def bad_checksum(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 12] ^= 1
    path.write_bytes(data)


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (truncated, ""),
    (empty, "not an image"),
    (html, "not an image"),
    (pixel_bomb, "12000x10000 are more than 50,000,000 pixels"),
    (huge_pixel_bomb, "exceeds limit"),
    (sixteen_bits, "mode I;16 are not 8 bits"),
    (floating, "mode F are not 8 bits"),
    (dangling, "not a file"),
    (pipe, "not a file"),
    (bad_checksum, ""),
]


def test_all_that_cannot_be_used_are_listed_at_once_or_skipped(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    by_number = sorted((root / "train").rglob("*.png"), key=lambda path: path.name)
    paths = sorted(by_number[: len(DAMAGES)])
    for path, (damage, _) in zip(paths, DAMAGES, strict=True):
        damage(path)
    for _ in range(2):  # decoded, then from the cache
        with pytest.raises(DataError, match=r"10 image\(s\) cannot be used") as caught:
            load(root)
        lines = str(caught.value).splitlines()
        assert len(lines) == 12
        for line, path, (_, reason) in zip(lines[1:], paths, DAMAGES, strict=False):
            assert f"{path}: " in line
            assert reason in line
        assert "--skip-bad" in lines[-1]
    caplog.clear()
    data = load(root, skip_bad=True)
    assert len(data.train) + len(present(data.validation)) == 8
    assert "10 image(s) cannot be used and are skipped" in caplog.text


def test_a_long_list_is_cut_and_counted(root: Path) -> None:
    for path in root.rglob("*.png"):
        empty(path)
    with pytest.raises(DataError, match=r"24 image\(s\) cannot be used") as caught:
        load(root, skip_bad=True)
    assert "and 4 more" in str(caught.value)


def test_a_class_without_any_usable_image_is_named(root: Path) -> None:
    for path in (root / "test" / "dog").iterdir():
        html(path)
    with pytest.raises(DataError, match="no image that can be used is left of: dog"):
        load(root, skip_bad=True)


def test_what_is_skipped_does_not_move_other_labels(root: Path) -> None:
    expected = load(root)
    html(root / "test" / "cat" / "0.png")
    data = load(root, skip_bad=True)
    assert data.test.labels.tolist() == [0, 1, 1, 2, 2]
    assert np.array_equal(data.test.images, expected.test.images[1:])


def test_transparency_lies_on_black(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 4), dtype=np.uint8)
    pixels[0, :, 3], pixels[1, :, 3] = 0, 255
    Image.fromarray(pixels).save(root / "test" / "cat" / "0.png")
    with caplog.at_level(logging.WARNING):
        found = load(root).test.images[0].transpose(1, 2, 0)
    assert not found[0].any()
    assert np.array_equal(found[1], pixels[1, :, :3])
    expected = pixels[..., :3] * (pixels[..., 3:] / 255)
    assert np.abs(found - expected).max() <= 1
    assert "1 image(s) have transparency" in caplog.text


def test_the_first_frame_of_an_animation_is_taken(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = (Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "blue"))
    path = root / "test" / "cat" / "0.png"
    path.unlink()
    first.save(path.with_suffix(".gif"), save_all=True, append_images=[second])
    found = load(root).test.images[0]
    assert found[:, 0, 0].tolist() == [255, 0, 0]
    assert "1 image(s) are animated" in caplog.text


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_rotation_by_exif_is_applied(root: Path, caplog: pytest.LogCaptureFixture, suffix: str) -> None:
    for path in root.rglob("*.png"):  # 6 wide, 8 high
        Image.linear_gradient("L").resize((6, SIDE)).convert("RGB").save(path)
    path = root / "test" / "cat" / "0.png"
    lying = np.zeros((6, SIDE, 3), dtype=np.uint8)  # one that lies on its side
    lying[:3, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    path.unlink()
    turned = path.with_suffix(suffix)
    Image.fromarray(lying).save(turned, exif=exif)
    found = load(root).test.images[0].transpose(1, 2, 0)
    with Image.open(turned) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert expected.shape == (SIDE, 6, 3)
    assert np.array_equal(found, expected)
    assert found[0, 5].tolist() != found[7, 0].tolist()
    assert "1 image(s) are rotated by EXIF" in caplog.text


def test_modes_of_eight_bits_are_converted(root: Path) -> None:
    source = Image.open(root / "test" / "cat" / "0.png")
    for number, mode in enumerate(("P", "CMYK", "1", "YCbCr")):
        path = root / "train" / "cat" / f"{number}.png"
        path.unlink()
        source.convert(mode).save(path.with_suffix(".tif" if mode in ("CMYK", "YCbCr") else ".png"))
    assert load(root).in_channels == 3
