"""Whole pixels are not refused over what stands beside them, and are put upright."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin

from ecd_deploy.data.imagefolder.decode import BadImage, read_headers, read_image

LYING = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
# what each orientation means, by the EXIF standard: what to do with rows and columns
UPRIGHT: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels.transpose(1, 0, 2)[:, ::-1],
    7: lambda pixels: pixels.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda pixels: pixels.transpose(1, 0, 2)[::-1],
}


def exif_of(orientation: object) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def odd_exif(orientation: int) -> bytes:
    """EXIF with an orientation, and two tags of types that they never have, which Pillow cannot write again."""
    entries = struct.pack("<HHII", 0x010F, 13, 1, 7) + struct.pack("<HHII", 0x0112, 3, 1, orientation)
    odd = struct.pack("<HHII", 0x011A, 2, 1, 0x41)  # a resolution that is text
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 3) + entries + odd + bytes(4)


def found(path: Path) -> tuple[NDArray[np.uint8], bool]:
    """The pixels, and whether the image is counted as turned; header and pixels agree on the size."""
    (header,) = read_headers([path])
    assert not isinstance(header, BadImage)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as all that decodes does
        pixels = read_image(path, 3, lambda image: image)
    assert not isinstance(pixels, BadImage)
    assert header.size == (pixels.shape[2], pixels.shape[1])
    return pixels.transpose(1, 2, 0), header.is_rotated


@pytest.mark.parametrize("orientation", list(UPRIGHT))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_each_orientation_is_turned(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(LYING).save(path, exif=exif_of(orientation), lossless=True)
    pixels, is_rotated = found(path)
    assert is_rotated
    assert np.array_equal(pixels, UPRIGHT[orientation](LYING))


@pytest.mark.parametrize("orientation", [0, 1, 9, 99])
def test_orientations_that_turn_nothing_are_not_counted(tmp_path: Path, orientation: int) -> None:
    Image.fromarray(LYING).save(tmp_path / "a.png", exif=exif_of(orientation))
    pixels, is_rotated = found(tmp_path / "a.png")
    assert not is_rotated
    assert np.array_equal(pixels, LYING)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_an_odd_tag_beside_the_orientation_does_not_keep_an_image_from_being_turned(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(LYING).save(path, exif=odd_exif(6))
    with Image.open(path) as image:
        assert image.getexif()[ExifTags.Base.Orientation] == 6
    pixels, is_rotated = found(path)
    assert is_rotated
    assert pixels.shape == (9, 6, 3)


@pytest.mark.parametrize("content", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0no TIFF at all"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_exif_that_cannot_be_read_turns_nothing(tmp_path: Path, suffix: str, content: bytes) -> None:
    Image.fromarray(LYING).save(tmp_path / f"a{suffix}", exif=content)
    pixels, is_rotated = found(tmp_path / f"a{suffix}")
    assert not is_rotated
    assert pixels.shape == LYING.shape


def chunk(kind: bytes, body: bytes, checksum: int | None = None) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum or zlib.crc32(kind + body))


@pytest.mark.parametrize(
    "odd",
    [
        chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2_000_000))),
        chunk(b"tEXt", b"a\0" + b"b" * 2_000_000),
        b"".join(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000))) for _ in range(70)),
        chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2_000_000))),
        chunk(b"tEXt", b"a\0b", checksum=7),
        chunk(b"pHYs", b"\0"),
    ],
    ids=["compressed text", "text", "much text", "colour profile", "checksum", "short chunk"],
)
@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_png_is_not_refused_over_chunks_beside_its_pixels(
    tmp_path: Path, odd: bytes, *, is_last: bool, orientation: int
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(LYING).save(path, exif=exif_of(orientation))
    whole = path.read_bytes()
    place = len(whole) - 12 if is_last else 33  # before the end, or after the header
    path.write_bytes(whole[:place] + odd + whole[place:])
    pixels, is_rotated = found(path)
    assert is_rotated == (orientation == 6)
    assert np.array_equal(pixels, UPRIGHT.get(orientation, np.asarray)(LYING))


def test_exif_after_the_pixels_of_a_png_turns_them(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(LYING).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-12] + chunk(b"eXIf", exif_of(6).tobytes().removeprefix(b"Exif\0\0")) + whole[-12:])
    assert np.array_equal(found(path)[0], UPRIGHT[6](LYING))


def test_a_png_with_two_megabytes_of_text_by_pillow_is_read(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("prompt", "a" * 2_000_000, zip=True)
    Image.fromarray(LYING).save(tmp_path / "a.png", pnginfo=text)
    assert np.array_equal(found(tmp_path / "a.png")[0], LYING)
