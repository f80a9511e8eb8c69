"""Files of wheels, which are archives: nothing is installed."""

from __future__ import annotations

import zipfile
from pathlib import Path


def find_wheel(folder: Path, distribution: str) -> Path:
    """The wheel of a distribution that was downloaded to a folder.

    Raises:
        FileNotFoundError: there is not exactly one.
    """
    found = sorted(folder.glob(f"{distribution}-*.whl"))
    if len(found) != 1:
        raise FileNotFoundError(f"{folder} holds {len(found)} wheels of {distribution}, 1 is expected")
    return found[0]


def read_member(wheel: Path, name: str) -> bytes:
    """A file of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name)
