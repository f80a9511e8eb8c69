"""What was found in the image files before the first step: what cannot be used, and what is unusual."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.data.imagefolder.decode import (
    BadImage,
    ImageHeader,
    ImageShape,
    choose_channels,
    choose_shape,
    decode_into,
    read_headers,
    take_fingerprints,
)
from ecd_deploy.data.imagefolder.listing import printable
from ecd_deploy.data.resize import Framing
from ecd_deploy.errors import DataError
from ecd_deploy.records import Record

_LISTED = 20

_logger = logging.getLogger(__name__)


class Findings(Record):
    """The files of a data set, judged.

    Attributes:
        bad: position and reason of each file that cannot be used, in order.
        with_alpha: files laid over black.
        animated: files of which the first frame is used.
        rotated: files that were put upright.
    """

    bad: tuple[tuple[int, str], ...]
    with_alpha: int
    animated: int
    rotated: int

    @classmethod
    def of(
        cls,
        files: Sequence[Path],
        headers: Sequence[ImageHeader | BadImage],
        undecodable: Sequence[BadImage] = (),
    ) -> Findings:
        """Judge files by their headers, in the same order, and by what cannot be decoded although its header can."""
        usable = [header for header in headers if isinstance(header, ImageHeader)]
        reasons = {found.path: found.reason for found in (*headers, *undecodable) if isinstance(found, BadImage)}
        return cls(
            bad=tuple((position, reasons[path]) for position, path in enumerate(files) if path in reasons)
            if reasons
            else (),
            with_alpha=sum(header.has_alpha for header in usable),
            animated=sum(header.is_animated for header in usable),
            rotated=sum(header.is_rotated for header in usable),
        )

    def good(self, count: int) -> NDArray[np.int64]:
        """Positions of the usable ones among `count` files, int64."""
        is_good = np.ones(count, dtype=bool)
        is_good[[position for position, _ in self.bad]] = False
        return np.flatnonzero(is_good)

    def report(self, files: Sequence[Path], *, skip_bad: bool) -> None:
        """Warn of what is unusual, and of what is skipped.

        Raises:
            DataError: there are bad files, and they are not to be skipped, or none is left.
        """
        unusual = (
            (self.with_alpha, "have transparency and are laid over black"),
            (self.animated, "are animated: the first frame is used"),
            (self.rotated, "are rotated by EXIF and were put upright"),
        )
        for count, what in unusual:
            if count:
                _logger.warning("%d image(s) %s", count, what)
        if not self.bad:
            return
        shown = "\n  ".join(printable(f"{files[position]}: {reason}") for position, reason in self.bad[:_LISTED])
        more = len(self.bad) - _LISTED
        text = shown + (f"\n  and {more} more" if more > 0 else "")
        if not skip_bad or len(self.bad) == len(files):
            raise DataError(
                f"{len(self.bad)} image(s) cannot be used:\n  {text}\n"
                "repair or remove them, or leave them out with --skip-bad (data.skip_bad)"
            )
        _logger.warning("%d image(s) cannot be used and are skipped:\n  %s", len(self.bad), text)


def inspect(files: Sequence[Path], framing: Framing | None) -> tuple[ImageShape, list[ImageHeader | BadImage]]:
    """Read all headers and choose the shape of the images that can be used.

    Raises:
        DataError: none can be used, or sizes differ and `framing` is None.
    """
    headers = read_headers(files)
    return choose_shape(_usable(files, headers), framing), headers


class CheckedFiles(Record):
    """What is known of files of which no pixel was kept.

    Attributes:
        channels: of the images that can be used, 1 or 3.
        findings: in all files.
        fingerprints: of each file's pixels; empty for those that cannot be used.
    """

    channels: int
    findings: Findings
    fingerprints: tuple[str, ...]


def check_all(files: Sequence[Path]) -> CheckedFiles:
    """Decode every file once and keep no pixel.

    Raises:
        DataError: none can be used.
    """
    headers = read_headers(files)
    usable = _usable(files, headers)
    channels = choose_channels(usable)
    taken = take_fingerprints([header.path for header in usable], channels)
    by_path = {header.path: found for header, found in zip(usable, taken, strict=True) if isinstance(found, str)}
    return CheckedFiles(
        channels=channels,
        findings=Findings.of(files, headers, [found for found in taken if isinstance(found, BadImage)]),
        fingerprints=tuple(by_path.get(path, "") for path in files),
    )


def decode_all(
    files: Sequence[Path],
    headers: Sequence[ImageHeader | BadImage],
    shape: ImageShape,
    images: NDArray[np.uint8],
) -> Findings:
    """Decode every file that can be decoded into its place in `images`, (N, C, H, W)."""
    places = [place for place, header in enumerate(headers) if isinstance(header, ImageHeader)]
    usable = [header for header in headers if isinstance(header, ImageHeader)]
    return Findings.of(files, headers, decode_into([header.path for header in usable], places, shape, images))


def _usable(files: Sequence[Path], headers: Sequence[ImageHeader | BadImage]) -> list[ImageHeader]:
    usable = [header for header in headers if isinstance(header, ImageHeader)]
    if not usable:
        Findings.of(files, headers).report(files, skip_bad=False)
    return usable
