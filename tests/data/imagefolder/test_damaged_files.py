"""Whatever the decoders raise for one file is that file's refusal, and it alone."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecd_deploy.data.imagefolder import decode
from ecd_deploy.data.imagefolder.decode import BadImage, ImageShape, decode_into, read_headers, read_image
from ecd_deploy.errors import DataError, Terminated
from tests.data.imagefolder.folders import SIDE, load, make_folders

FORMATS = ("GIF", "AVIF", "JPEG2000", "DDS", "BLP", "TIFF", "WEBP", "ICO", "PPM", "QOI", "JPEG", "PNG")


def encoded(image_format: str) -> bytes:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8))
    file = io.BytesIO()
    if image_format == "GIF":
        image.save(file, image_format, save_all=True, append_images=[image.rotate(90)])
    else:
        (image.quantize() if image_format == "BLP" else image).save(file, image_format)
    return file.getvalue()


def damaged(whole: bytes) -> list[bytes]:
    """The file cut at many places, and with bytes of its header changed."""
    draw = np.random.default_rng(1)
    cuts = [whole[: int(len(whole) * share)] for share in np.linspace(0, 1, 25, endpoint=False)]
    flipped = []
    for _ in range(60):
        content = bytearray(whole)
        for place in draw.integers(0, min(len(content), 200), 2):
            content[place] = draw.integers(0, 256)
        flipped.append(bytes(content))
    return cuts + flipped


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_damaged_file_of_any_format_is_decoded_or_refused_with_a_reason(tmp_path: Path, image_format: str) -> None:
    whole = encoded(image_format)
    paths = [tmp_path / f"{number}" for number in range(1 + len(damaged(whole)))]
    for path, content in zip(paths, [whole, *damaged(whole)], strict=True):
        path.write_bytes(content)
    headers = read_headers(paths)
    assert not isinstance(headers[0], BadImage)
    usable = [header.path for header in headers if not isinstance(header, BadImage)]
    images = np.zeros((len(usable), 3, *headers[0].size[::-1]), dtype=np.uint8)
    bad = decode_into(usable, range(len(usable)), ImageShape(3, *headers[0].size[::-1]), images)
    bad += [header for header in headers if isinstance(header, BadImage)]
    assert paths[0] not in [image.path for image in bad]
    assert bad
    assert all(image.reason and "\n" not in image.reason and len(image.reason) < 300 for image in bad)


def test_each_format_that_is_cut_is_listed_with_the_others(tmp_path: Path) -> None:
    root = make_folders(tmp_path)
    cut = ("GIF", "AVIF", "JPEG2000", "DDS", "BLP")
    for number, image_format in enumerate(cut):
        path = root / "train" / "cat" / f"{number}.{image_format.lower()}"
        path.with_suffix(".png").unlink()
        whole = encoded(image_format)
        path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"5 image\(s\) cannot be used") as caught:
        load(root, image_size=SIDE)
    assert all(f"{number}.{image_format.lower()}: " in str(caught.value) for number, image_format in enumerate(cut))
    assert len(load(root, image_size=SIDE, skip_bad=True).test) == 6


def test_a_gif_that_is_cut_in_its_first_frame_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48), dtype=np.uint8)).save(tmp_path / "a.gif")
    whole = (tmp_path / "a.gif").read_bytes()
    for share in (0.3, 0.5, 0.7, 0.9):
        (tmp_path / "a.gif").write_bytes(whole[: int(len(whole) * share)])
        assert isinstance(read_image(tmp_path / "a.gif", 3, lambda image: image), BadImage)


def test_a_file_that_decodes_to_another_size_than_its_header_says_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "a.png")
    images = np.ones((1, 3, SIDE, SIDE + 1), dtype=np.uint8)
    (bad,) = decode_into([tmp_path / "a.png"], [0], ImageShape(3, SIDE, SIDE + 1), images)
    assert bad.reason == "8x8 pixels are not what its header says"
    assert images.all()


@pytest.mark.parametrize("raised", [MemoryError(), KeyboardInterrupt(), Terminated("SIGTERM")])
def test_what_is_no_fault_of_the_file_is_not_taken_for_one(
    tmp_path: Path, raised: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "a.png")

    def interrupt(*_: object) -> None:
        raise raised

    monkeypatch.setattr(decode, "_decode", interrupt)
    with pytest.raises(type(raised)):
        read_image(tmp_path / "a.png", 3, lambda image: image)


def test_decoders_print_nothing(tmp_path: Path) -> None:
    """In a process without handlers for logs, whose warnings are those of a user's."""
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "warns.tif")
    content = bytearray((tmp_path / "warns.tif").read_bytes())
    place = content.index(b"\x15\x01\x03\x00")  # samples per pixel: Pillow logs an error
    content[place + 8] = 31
    (tmp_path / "warns.tif").write_bytes(content)
    Image.new("P", (SIDE, SIDE)).save(tmp_path / "palette.png", transparency=bytes(range(256)))
    code = (
        "import sys; from pathlib import Path; from ecd_deploy.data.imagefolder.decode import *;"
        "files = sorted(Path(sys.argv[1]).iterdir()); headers = read_headers(files);"
        "print(take_fingerprints(files, 3), headers)"
    )
    command = [sys.executable, "-W", "always", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "warns.tif" in done.stdout
    assert done.stderr == ""


def test_warnings_of_decoders_are_no_errors_either(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("P", (SIDE, SIDE)).save(tmp_path / "palette.png", transparency=bytes(range(256)))
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.WARNING):
        warnings.simplefilter("always")
        assert not isinstance(read_headers([tmp_path / "palette.png"])[0], BadImage)
    assert caught == []
    assert caplog.records == []
