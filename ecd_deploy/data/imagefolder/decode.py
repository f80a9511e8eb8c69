"""Image files to one uint8 array, by a pool of threads.

Two passes: headers decide the shape, then each file is decoded straight into its place, so that the
array may as well be a memory-mapped one. What cannot be used is collected, never raised at the first.

What is done with the unusual:

- 16 bits a channel, floating point: cannot be used, since 8 bits would clip or blacken it.
- more than `MOST_PIXELS` pixels: cannot be used; a small file can decode to gigabytes.
- transparency: laid over black, the value that padding has; counted.
- several frames: the first; counted.
- EXIF orientation: applied; counted.
- palettes, CMYK and other 8-bit modes: converted to RGB, or to grey if all images are grey.
- text, colour profiles or EXIF that cannot be read: left aside; the pixels count.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ecd_deploy.data.imagefolder.metadata import png_of_pixels, read_orientation, turn_upright, upright_size
from ecd_deploy.data.imagefolder.progress import map_files
from ecd_deploy.data.overlap import fingerprint
from ecd_deploy.data.resize import Framing
from ecd_deploy.errors import DataError, EcdDeployError, reraise_machine_fault
from ecd_deploy.files import sha256_bytes

MOST_PIXELS = 50_000_000

_GREY_MODES = frozenset({"1", "L", "LA"})
_COLOUR_MODES = frozenset({"RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa", "La"})
_MOST_OF_A_REASON = 200  # characters; a damaged file can make Pillow cite a great deal of it

T = TypeVar("T")

# What Pillow logs of a file is in that file's refusal; without a handler, logging would print it to stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class BadImage:
    """A file that cannot be used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class ImageHeader:
    """What is known of a file without decoding it: size is (width, height) in pixels, upright by EXIF's orientation."""

    path: Path
    size: tuple[int, int]
    is_grey: bool
    has_alpha: bool = False
    is_animated: bool = False
    orientation: int | None = None

    @property
    def is_rotated(self) -> bool:
        """Whether it is put upright."""
        return self.orientation is not None


@dataclass(frozen=True)
class ImageShape:
    """The shape that all images have, or are brought to if there is a `framing`."""

    channels: int
    height: int
    width: int
    framing: Framing | None = None


def read_headers(files: Sequence[Path]) -> list[ImageHeader | BadImage]:
    """Read the headers of all files."""
    return map_files(lambda index: _read_header(files[index]), len(files), "reading headers")


def choose_channels(headers: Sequence[ImageHeader]) -> int:
    """1 if all images are grey, or else 3."""
    return 1 if all(header.is_grey for header in headers) else 3


def choose_shape(headers: Sequence[ImageHeader], framing: Framing | None) -> ImageShape:
    """Choose one shape for all images: grey only if all are, and the size of `framing` if given.

    Raises:
        DataError: sizes differ and `framing` is None.
    """
    channels = choose_channels(headers)
    if framing is not None:
        return ImageShape(channels, *framing.size, framing)
    first = headers[0]
    for header in headers:
        if header.size != first.size:
            raise DataError(
                f"images differ in size: {first.path} is {first.size[0]}x{first.size[1]}, {header.path} is "
                f"{header.size[0]}x{header.size[1]}; set data.image_size to bring them to one"
            )
    return ImageShape(channels, first.size[1], first.size[0])


def decode_into(
    files: Sequence[Path], places: Sequence[int], shape: ImageShape, images: NDArray[np.uint8]
) -> list[BadImage]:
    """Decode file i into `images[places[i]]`, (C, H, W); `images` may be memory-mapped.

    Returns:
        The files that could not be decoded; their places are left as they were.
    """

    def fit(image: Image.Image) -> Image.Image:
        return image if shape.framing is None else shape.framing.apply(image)

    def decode(index: int) -> BadImage | None:
        found = read_image(files[index], shape.channels, fit)
        if isinstance(found, BadImage):
            return found
        if found.shape != images.shape[1:]:
            return BadImage(files[index], f"{found.shape[2]}x{found.shape[1]} pixels are not what its header says")
        images[places[index]] = found
        return None

    return [bad for bad in map_files(decode, len(files), "decoding images") if bad is not None]


def take_fingerprints(files: Sequence[Path], channels: int) -> list[str | BadImage]:
    """Decode every file, keep no pixel, and return the fingerprint of each, or why it could not be decoded."""

    def attempt(index: int) -> str | BadImage:
        found = read_image(files[index], channels, lambda image: image)
        return found if isinstance(found, BadImage) else fingerprint(found)

    return map_files(attempt, len(files), "checking images")


@dataclass(frozen=True)
class DecodedImage:
    """An image, what its header says, and the SHA-256 of its file; pixels are uint8 (C, H, W)."""

    header: ImageHeader
    pixels: NDArray[np.uint8]
    sha256: str


def read_whole(path: Path, channels: int, fit: Callable[[Image.Image], Image.Image]) -> DecodedImage | BadImage:
    """Judge, decode and digest one file, which is read once; see `read_headers` and `read_image`."""
    try:
        if not path.is_file():
            return BadImage(path, "not a file")
        data = path.read_bytes()
    except OSError as error:
        return BadImage(path, _reason(error))

    def decode(opened: Image.Image) -> DecodedImage | BadImage:
        header = _judge_header(path, opened)
        if isinstance(header, BadImage):
            return header
        image = _decode(opened, channels, header.orientation)
        return DecodedImage(header, _pixels(fit(image), channels), sha256_bytes(data))

    return _use(path, decode, data)


def read_image(path: Path, channels: int, fit: Callable[[Image.Image], Image.Image]) -> NDArray[np.uint8] | BadImage:
    """Decode one file, upright, of 1 or 3 channels, and let `fit` bring it to size; uint8 (C, H, W)."""
    image = _use(path, lambda opened: _decode(opened, channels, read_orientation(opened)))
    return image if isinstance(image, BadImage) else _pixels(fit(image), channels)


def _pixels(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], channels).transpose(2, 0, 1)


def _read_header(path: Path) -> ImageHeader | BadImage:
    try:
        if not path.is_file():  # a pipe would keep whoever opens it
            return BadImage(path, "not a file")
    except OSError as error:
        return BadImage(path, _reason(error))
    return _use(path, lambda opened: _judge_header(path, opened))


def _judge_header(path: Path, image: Image.Image) -> ImageHeader | BadImage:
    width, height = image.size
    if width * height > MOST_PIXELS:
        return BadImage(path, f"{width}x{height} are more than {MOST_PIXELS:,} pixels")
    if width * height == 0:
        return BadImage(path, f"{width}x{height} are no pixels")
    if image.mode not in _GREY_MODES and image.mode not in _COLOUR_MODES:
        return BadImage(path, f"pixels of mode {image.mode} are not 8 bits a channel")
    orientation = read_orientation(image)
    return ImageHeader(
        path,
        upright_size(image, orientation),
        is_grey=image.mode in _GREY_MODES,
        has_alpha=image.has_transparency_data,
        is_animated=getattr(image, "is_animated", False),
        orientation=orientation,
    )


def _decode(opened: Image.Image, channels: int, orientation: int | None) -> Image.Image:
    mode = "L" if channels == 1 else "RGB"
    opened.load()
    image = turn_upright(opened, orientation)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA"))
    return image if image.mode == mode else image.convert(mode)


def _use(path: Path, use: Callable[[Image.Image], T | BadImage], data: bytes | None = None) -> T | BadImage:
    """Open the file, or its bytes, and use it; if that fails and it is a PNG, once more with its pixels alone."""
    found = _attempt(path, path if data is None else io.BytesIO(data), use)
    if not isinstance(found, BadImage) or (pixels := png_of_pixels(path)) is None:
        return found
    again = _attempt(path, pixels, use)
    return found if isinstance(again, BadImage) else again


def _attempt(path: Path, file: Path | io.BytesIO, use: Callable[[Image.Image], T | BadImage]) -> T | BadImage:
    try:
        with Image.open(file) as image:
            return use(image)
    except EcdDeployError:
        raise
    # Pillow's decoders raise what their format's code happens to raise on damaged bytes (IndexError, struct.error,
    # RuntimeError, NotImplementedError and more): nothing but the file is at work here.
    except Exception as error:  # noqa: BLE001
        reraise_machine_fault(error)
        return BadImage(path, _reason(error))


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    text = " ".join(str(error).split())[:_MOST_OF_A_REASON]
    if isinstance(error, OSError | ValueError | Image.DecompressionBombError) and text:
        return text
    return f"cannot be decoded ({type(error).__name__}{f': {text}' if text else ''})"
