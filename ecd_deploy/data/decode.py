"""Image files to one uint8 array, by a pool of threads.

Two passes: headers decide the shape, then each file is decoded straight into its place, so that the
array may as well be a memory-mapped one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ecd_deploy.data.resize import resize_and_crop
from ecd_deploy.errors import DataError

_GREY_MODES = frozenset({"1", "L", "LA"})
_COLOUR_MODES = frozenset({"RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa", "La"})
_LISTED_OFFENDERS = 20
_BLOCK_FILES = 64  # one task of the pool: a task for each file costs as much as decoding a small one
_MOST_THREADS = 32
# Everything Pillow's decoders raise on damaged input, and its guard against over-large images.
_DECODE_ERRORS = (OSError, ValueError, SyntaxError, EOFError, TypeError, Image.DecompressionBombError)


T = TypeVar("T")


@dataclass(frozen=True)
class ImageHeader:
    """What is known of a file without decoding it; size is (width, height) in pixels."""

    path: Path
    size: tuple[int, int]
    is_grey: bool


@dataclass(frozen=True)
class ImageShape:
    """The shape that all images are brought to; `resize` tells whether that needs resizing."""

    channels: int
    height: int
    width: int
    resize: bool


def read_headers(files: Sequence[Path]) -> list[ImageHeader]:
    """Read the headers of all files.

    Raises:
        DataError: naming the files that are not images, or whose pixels are not 8 bits a channel.
    """
    results = _map_threaded(lambda index: _read_header(files[index]), len(files))
    _raise_if_any([result for result in results if isinstance(result, str)])
    return [result for result in results if isinstance(result, ImageHeader)]


def choose_shape(headers: Sequence[ImageHeader], image_size: int | None) -> ImageShape:
    """Choose one shape for all images: grey only if all are, and `image_size` squared if given.

    Raises:
        DataError: sizes differ and `image_size` is None.
    """
    channels = 1 if all(header.is_grey for header in headers) else 3
    if image_size is not None:
        return ImageShape(channels, image_size, image_size, resize=True)
    first = headers[0]
    for header in headers:
        if header.size != first.size:
            raise DataError(
                f"images differ in size: {first.path} is {first.size[0]}x{first.size[1]}, {header.path} is "
                f"{header.size[0]}x{header.size[1]}; set data.image_size to bring them to one"
            )
    return ImageShape(channels, first.size[1], first.size[0], resize=False)


def decode_images(files: Sequence[Path], shape: ImageShape) -> NDArray[np.uint8]:
    """Decode all files into a new array, (N, C, H, W).

    Raises:
        DataError: naming the files that cannot be decoded.
    """
    images = np.empty((len(files), shape.channels, shape.height, shape.width), dtype=np.uint8)
    decode_into(files, shape, images)
    return images


def decode_into(files: Sequence[Path], shape: ImageShape, images: NDArray[np.uint8]) -> None:
    """Decode file i into `images[i]`, (C, H, W); `images` may be memory-mapped.

    Raises:
        DataError: naming the files that cannot be decoded.
    """

    def decode(index: int) -> str | None:
        try:
            images[index] = _decode(files[index], shape)
        except _DECODE_ERRORS as error:
            return f"{files[index]}: {_reason(error)}"
        return None

    _raise_if_any([reason for reason in _map_threaded(decode, len(files)) if reason is not None])


def _read_header(path: Path) -> ImageHeader | str:
    try:
        with Image.open(path) as image:
            if image.mode in _GREY_MODES or image.mode in _COLOUR_MODES:
                return ImageHeader(path, image.size, image.mode in _GREY_MODES)
            return f"{path}: pixels of mode {image.mode} are not 8 bits a channel"
    except _DECODE_ERRORS as error:
        return f"{path}: {_reason(error)}"


def _decode(path: Path, shape: ImageShape) -> NDArray[np.uint8]:
    with Image.open(path) as opened:
        image = opened.convert("L" if shape.channels == 1 else "RGB")
    if shape.resize:
        image = resize_and_crop(image, shape.height)
    pixels = np.asarray(image).reshape(shape.height, shape.width, shape.channels)
    return pixels.transpose(2, 0, 1)


def _map_threaded(function: Callable[[int], T], count: int) -> list[T]:
    def block(start: int) -> list[T]:
        return [function(index) for index in range(start, min(start + _BLOCK_FILES, count))]

    with ThreadPoolExecutor(max_workers=min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        return [result for results in pool.map(block, range(0, count, _BLOCK_FILES)) for result in results]


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return str(error) or type(error).__name__


def _raise_if_any(offenders: list[str]) -> None:
    if not offenders:
        return
    shown = "\n  ".join(offenders[:_LISTED_OFFENDERS])
    more = len(offenders) - _LISTED_OFFENDERS
    rest = f"\n  and {more} more" if more > 0 else ""
    raise DataError(f"{len(offenders)} image(s) cannot be used:\n  {shown}{rest}")
