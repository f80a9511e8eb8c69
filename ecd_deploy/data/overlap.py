"""Test images that were trained on or selected by: the same pixels, whatever the files are called."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.errors import DataError

_LISTED = 5

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fingerprints:
    """What tells the images of one split apart.

    Attributes:
        values: of each image; empty for one that cannot be the same as any other.
        names: of each image, for messages.
    """

    values: tuple[str, ...]
    names: tuple[str, ...]


def fingerprint(pixels: NDArray[np.uint8]) -> str:
    """16 hexadecimal digits of an image's shape and pixels.

    Among ten million images, the probability that any two that differ share one is 3e-6.
    """
    digest = hashlib.blake2b(str(pixels.shape).encode(), digest_size=8)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def fingerprint_suspects(test: NDArray[np.uint8], *seen: NDArray[np.uint8]) -> tuple[tuple[str, ...], ...]:
    """Fingerprints of each set's images, uint8 (N, C, H, W); empty where the middle row tells them from the others'.

    Of most images only that row is read: reading all pixels of many large images takes long.
    """
    rows = [_middle_rows(images) for images in (test, *seen)]
    shared = set(rows[0]).intersection(*[{row for part in rows[1:] for row in part}])
    return tuple(
        tuple(fingerprint(image) if row in shared else "" for image, row in zip(images, part_rows, strict=True))
        for images, part_rows in zip((test, *seen), rows, strict=True)
    )


def count_overlap(test: Fingerprints, *seen: Fingerprints, most: float) -> int:
    """Count the test images that are also among those seen before the test, and warn if there are any.

    Args:
        test: of the test images.
        seen: of the training images, and of the validation images.
        most: share of the test images that may be among them.

    Raises:
        DataError: it is exceeded.
    """
    known = {value: name for part in seen for value, name in zip(part.values, part.names, strict=True) if value}
    twins = [(name, known[value]) for value, name in zip(test.values, test.names, strict=True) if value in known]
    if not twins:
        return 0
    share = len(twins) / len(test.values)
    lines = [f"{name} is {twin}" for name, twin in twins[:_LISTED]]
    if len(twins) > _LISTED:
        lines.append(f"and {len(twins) - _LISTED} more")
    text = "\n  ".join(
        [f"{len(twins)} of {len(test.values)} test images ({share:.2%}) are training or validation images too:", *lines]
    )
    if share > most:
        raise DataError(
            f"{text}\naccuracy on these says nothing about new images: remove them from one side, or accept a larger "
            f"share by data.max_test_overlap (now {most:g})"
        )
    _logger.warning("%s", text)
    return len(twins)


def _middle_rows(images: NDArray[np.uint8]) -> list[bytes]:
    return [row.tobytes() for row in images[:, :, images.shape[2] // 2]]
