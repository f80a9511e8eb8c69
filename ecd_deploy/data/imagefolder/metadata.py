"""What stands beside the pixels of an image file: its orientation, and what can keep Pillow from reading it."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image

from ecd_deploy.errors import EcdDeployError, reraise_machine_fault

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset({5, 6, 7, 8})
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_HEAD = struct.Struct(">I4s")  # length and kind of a chunk; its bytes and their checksum follow
_PNG_CHECKSUM = struct.Struct(">I")
_PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_PNG_EXIF = b"eXIf"


def read_orientation(image: Image.Image) -> int | None:
    """The EXIF orientation if it is one that turns or mirrors the image, 2 to 8.

    EXIF that cannot be read has none. A PNG is loaded, since its EXIF may stand after the pixels.
    """
    if image.format == "PNG" and "exif" not in image.info:
        image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except EcdDeployError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever is wrong with the EXIF, the pixels are whole
        reraise_machine_fault(error)
        return None
    return orientation if isinstance(orientation, int) and orientation in _TURNS else None


def upright_size(image: Image.Image, orientation: int | None) -> tuple[int, int]:
    """Width and height after the turn."""
    width, height = image.size
    # Pillow has swapped those of a TIFF already
    return (height, width) if orientation in _SIDEWAYS and image.format != "TIFF" else (width, height)


def turn_upright(image: Image.Image, orientation: int | None) -> Image.Image:
    """Turn a loaded image, which was opened from a file; its EXIF is left as it is.

    `PIL.ImageOps.exif_transpose` writes the EXIF anew, which fails where one tag has an unexpected type.
    """
    # Pillow turns a TIFF when it loads it
    return image if orientation is None or image.format == "TIFF" else image.transpose(_TURNS[orientation])


def png_of_pixels(path: Path) -> io.BytesIO | None:
    """The chunks of a PNG that make its pixels, and its EXIF if that is whole; None if it is no PNG.

    For files that Pillow refuses over text, colour profiles or checksums of these.
    """
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return _copy_pixels(file) if file.read(len(_PNG_SIGNATURE)) == _PNG_SIGNATURE else None
    except OSError:
        return None


def _copy_pixels(chunks: BinaryIO) -> io.BytesIO:
    kept = io.BytesIO()
    kept.write(_PNG_SIGNATURE)
    while len(head := chunks.read(_PNG_HEAD.size)) == _PNG_HEAD.size:
        length, kind = _PNG_HEAD.unpack(head)
        if kind not in _PNG_PIXELS and kind != _PNG_EXIF:
            chunks.seek(length + _PNG_CHECKSUM.size, io.SEEK_CUR)
            continue
        body, checksum = chunks.read(length), chunks.read(_PNG_CHECKSUM.size)
        # a chunk of the pixels is judged by Pillow
        if kind in _PNG_PIXELS or checksum == _PNG_CHECKSUM.pack(zlib.crc32(kind + body)):
            kept.write(head + body + checksum)
    kept.seek(0)
    return kept
