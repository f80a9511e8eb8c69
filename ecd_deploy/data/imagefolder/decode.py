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
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.progress import Progress

from ecd_deploy.data.resize import Framing
from ecd_deploy.errors import DataError

MOST_PIXELS = 50_000_000

_GREY_MODES = frozenset({"1", "L", "LA"})
_COLOUR_MODES = frozenset({"RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa", "La"})
_UPRIGHT = 1
_SIDEWAYS = frozenset({5, 6, 7, 8})  # EXIF orientations that swap width and height
_BLOCK_FILES = 64  # one task of the pool: a task for each file costs as much as decoding a small one
_MOST_THREADS = 32
# Everything Pillow's decoders raise on damaged input, and its guard against over-large images.
_DECODE_ERRORS = (OSError, ValueError, SyntaxError, EOFError, TypeError, Image.DecompressionBombError)

T = TypeVar("T")


@dataclass(frozen=True)
class BadImage:
    """A file that cannot be used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class ImageHeader:
    """What is known of a file without decoding it; size is (width, height) in pixels, upright."""

    path: Path
    size: tuple[int, int]
    is_grey: bool
    has_alpha: bool = False
    is_animated: bool = False
    is_rotated: bool = False


@dataclass(frozen=True)
class ImageShape:
    """The shape that all images have, or are brought to if there is a `framing`."""

    channels: int
    height: int
    width: int
    framing: Framing | None = None


def read_headers(files: Sequence[Path]) -> list[ImageHeader | BadImage]:
    """Read the headers of all files."""
    return _map_threaded(lambda index: _read_header(files[index]), len(files), "reading headers")


def choose_channels(headers: Sequence[ImageHeader]) -> int:
    """1 if all images are grey, or else 3."""
    return 1 if all(header.is_grey for header in headers) else 3


def choose_shape(headers: Sequence[ImageHeader], framing: Framing | None) -> ImageShape:
    """Choose one shape for all images: grey only if all are, and the square of `framing` if given.

    Raises:
        DataError: sizes differ and `framing` is None.
    """
    channels = choose_channels(headers)
    if framing is not None:
        return ImageShape(channels, framing.side, framing.side, framing)
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
        images[places[index]] = found
        return None

    return [bad for bad in _map_threaded(decode, len(files), "decoding images") if bad is not None]


def try_to_decode(files: Sequence[Path], channels: int) -> list[BadImage]:
    """Decode every file, keep no pixel, and return the files that could not be decoded."""

    def attempt(index: int) -> BadImage | None:
        found = read_image(files[index], channels, lambda image: image)
        return found if isinstance(found, BadImage) else None

    return [bad for bad in _map_threaded(attempt, len(files), "checking images") if bad is not None]


def read_image(path: Path, channels: int, fit: Callable[[Image.Image], Image.Image]) -> NDArray[np.uint8] | BadImage:
    """Decode one file, upright, of 1 or 3 channels, and let `fit` bring it to size; uint8 (C, H, W)."""
    try:
        pixels = np.asarray(fit(_decode(path, channels)))
    except _DECODE_ERRORS as error:
        return BadImage(path, _reason(error))
    return pixels.reshape(*pixels.shape[:2], channels).transpose(2, 0, 1)


def _read_header(path: Path) -> ImageHeader | BadImage:
    try:
        if not path.is_file():
            return BadImage(path, "not a file")
        with Image.open(path) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                return BadImage(path, f"{width}x{height} are more than {MOST_PIXELS:,} pixels")
            if image.mode not in _GREY_MODES and image.mode not in _COLOUR_MODES:
                return BadImage(path, f"pixels of mode {image.mode} are not 8 bits a channel")
            orientation = image.getexif().get(ExifTags.Base.Orientation, _UPRIGHT)
            return ImageHeader(
                path,
                # Pillow has turned the size of a TIFF already
                (height, width) if orientation in _SIDEWAYS and image.format != "TIFF" else (width, height),
                is_grey=image.mode in _GREY_MODES,
                has_alpha=image.has_transparency_data,
                is_animated=getattr(image, "is_animated", False),
                is_rotated=orientation != _UPRIGHT,
            )
    except _DECODE_ERRORS as error:
        return BadImage(path, _reason(error))


def _decode(path: Path, channels: int) -> Image.Image:
    mode = "L" if channels == 1 else "RGB"
    with Image.open(path) as opened:
        opened.load()
        image: Image.Image = opened
        if opened.getexif().get(ExifTags.Base.Orientation, _UPRIGHT) != _UPRIGHT:
            image = ImageOps.exif_transpose(image)
        if image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA"))
        return image if image.mode == mode else image.convert(mode)


def _map_threaded(function: Callable[[int], T], count: int, what: str) -> list[T]:
    def block(start: int) -> list[T]:
        return [function(index) for index in range(start, min(start + _BLOCK_FILES, count))]

    starts = range(0, count, _BLOCK_FILES)
    with ThreadPoolExecutor(max_workers=min(_MOST_THREADS, os.cpu_count() or 1)) as pool, warnings.catch_warnings():
        # over-large images are refused by their header; their warning would come on top
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return [result for results in _shown(pool.map(block, starts), len(starts), what) for result in results]


def _shown(blocks: Iterable[list[T]], count: int, what: str) -> Iterable[list[T]]:
    """The same, with a bar if somebody looks."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return blocks
    with Progress(console=console, transient=True) as progress:
        return list(progress.track(blocks, total=count, description=what))


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return str(error) or type(error).__name__
