"""What was found in image files whose pixels are not kept: judged once, remembered in the cache's folder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ecd_deploy.data.imagefolder.cache import entry_key, locked
from ecd_deploy.data.imagefolder.preflight import CheckedFiles, check_all
from ecd_deploy.errors import ArtefactError
from ecd_deploy.files import sha256_bytes, write_atomic
from ecd_deploy.records import Record

_KIND = "checked, with fingerprints"

_logger = logging.getLogger(__name__)


class _Entry(Record):
    sha256: str
    checked: CheckedFiles


def open_checked(root: Path, files: Sequence[Path], folder: Path) -> CheckedFiles:
    """Decode every file once to judge it, or read what an earlier run found in the same files.

    Args:
        root: paths are taken relative to it.
        files: below `root`.
        folder: of the cache; where it cannot be written, nothing is remembered.

    Raises:
        DataError: no file can be used.
    """
    entry = folder / f"{entry_key(root, files, _KIND)}.json"
    try:
        with locked(entry):
            if (found := _read(entry)) is not None:
                return found
            checked = check_all(files)
            _write(entry, checked)
            return checked
    except OSError as error:
        _logger.warning("images are checked anew, since the cache %s cannot be used: %s", folder, error.strerror)
    return check_all(files)


def _read(entry: Path) -> CheckedFiles | None:
    try:
        found = _Entry.from_json(entry.read_bytes(), f"{entry} is no entry")
    except FileNotFoundError:
        return None
    except ArtefactError:
        found = None
    if found is None or _digest(found.checked) != found.sha256:
        _logger.warning("images are checked anew: %s was changed after it was written", entry)
        return None
    return found.checked


def _write(entry: Path, checked: CheckedFiles) -> None:
    try:
        write_atomic(entry, _Entry(sha256=_digest(checked), checked=checked).model_dump_json().encode())
    except ArtefactError as error:
        _logger.warning("what was found in the images is not remembered: %s", error)


def _digest(checked: CheckedFiles) -> str:
    return sha256_bytes(checked.model_dump_json().encode())
