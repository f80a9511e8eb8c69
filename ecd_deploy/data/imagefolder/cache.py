"""Decoded images kept on disk: decoded once, memory-mapped ever after, by any run and process.

An entry is a folder named by the digest of what decides over its bytes: each file's path, size and
time of change, the size asked for and how it is reached, and the versions of the decoder. It is built under a temporary
name by one process while others wait, and renamed when it is whole. Its own digest is checked
whenever it is opened; what does not fit is built anew.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from ecd_deploy.data.imagefolder.preflight import Findings, decode_all, inspect
from ecd_deploy.data.resize import Framing
from ecd_deploy.errors import ArtefactError
from ecd_deploy.files import sha256_file, sync_directory, write_atomic
from ecd_deploy.records import Record
from ecd_deploy.system import allocate, lock

_VERSION = 1
_IMAGES = "images.u8"
_INDEX = "index.json"

_logger = logging.getLogger(__name__)


class _Index(Record):
    """`index.json` of an entry: the array's shape (N, C, H, W), its digest, and what was found."""

    shape: tuple[int, int, int, int]
    sha256: str
    findings: Findings


@dataclass(frozen=True)
class DecodedImages:
    """Every file's pixels, uint8 (N, C, H, W); those of bad files are not defined."""

    images: NDArray[np.uint8]
    findings: Findings


def default_cache_folder() -> Path:
    """`ecd-deploy` in the user's cache folder ($XDG_CACHE_HOME, or ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ecd-deploy"


def open_decoded(root: Path, files: Sequence[Path], framing: Framing | None, folder: Path) -> DecodedImages:
    """Decode the files, or map what an earlier run decoded; without a place to write, decode into memory.

    Args:
        root: paths are taken relative to it.
        files: below `root`.
        framing: brings images to one size; None if all have one.
        folder: of the cache.

    Raises:
        DataError: no file can be used, or sizes differ and `framing` is None.
    """
    entry = folder / entry_key(root, files, "None" if framing is None else framing.key)
    try:
        with locked(entry):
            found = _open(entry)
            if found is None:
                _build(entry, files, framing)
                found = _open(entry)
        if found is not None:
            return found
    except OSError as error:
        _logger.warning("images are decoded anew, since the cache %s cannot be written: %s", folder, error.strerror)
    shape, headers = inspect(files, framing)
    images = np.zeros((len(files), shape.channels, shape.height, shape.width), dtype=np.uint8)
    return DecodedImages(images, decode_all(files, headers, shape, images))


def entry_key(root: Path, files: Sequence[Path], kind: str) -> str:
    """Name an entry by its kind and by each file's path below `root`, size and time of change."""
    digest = hashlib.sha256(f"{_VERSION} {PIL.__version__} {kind}\n".encode())
    above = len(os.fsencode(root)) + 1
    for name in map(os.fsencode, files):  # thousands of paths: text is much faster than their methods
        try:
            status = os.stat(name)  # noqa: PTH116
            version = f"{status.st_size} {status.st_mtime_ns}"
        except OSError as error:  # a dangling link, for example: named with the other bad images
            version = str(error.errno)
        digest.update(name[above:] + f"\0{version}\n".encode())
    return digest.hexdigest()


def _open(entry: Path) -> DecodedImages | None:
    try:
        index = _Index.from_json((entry / _INDEX).read_bytes(), f"{entry / _INDEX} is no index")
        if sha256_file(entry / _IMAGES) != index.sha256:
            raise ArtefactError(f"{entry / _IMAGES} was changed after it was written")
    except FileNotFoundError:
        return None
    except ArtefactError as error:
        _logger.warning("the cache is built anew: %s", error)
        shutil.rmtree(entry)
        return None
    # a private copy of each page that is written to: tensors that share it want writable memory
    return DecodedImages(np.memmap(entry / _IMAGES, dtype=np.uint8, mode="c", shape=index.shape), index.findings)


def _build(entry: Path, files: Sequence[Path], framing: Framing | None) -> None:
    shape, headers = inspect(files, framing)
    full_shape = (len(files), shape.channels, shape.height, shape.width)
    partial = entry.with_name(f".{entry.name}.{secrets.token_hex(4)}.partial")
    partial.mkdir()
    try:
        # allocated at once: a full disk is an error here, and not a signal while pixels are written
        with (partial / _IMAGES).open("xb") as file:
            allocate(file, int(np.prod(full_shape)))
        images = np.memmap(partial / _IMAGES, dtype=np.uint8, mode="r+", shape=full_shape)
        findings = decode_all(files, headers, shape, images)
        images.flush()
        index = _Index(shape=full_shape, sha256=sha256_file(partial / _IMAGES), findings=findings)
        write_atomic(partial / _INDEX, index.model_dump_json().encode())
        partial.rename(entry)
        sync_directory(entry.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def locked(entry: Path) -> Iterator[None]:
    """Hold the entry's lock, after whoever builds it; sweep what killed builders left."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    with entry.with_name(f"{entry.name}.lock").open("a") as held:
        lock(held, wait=True)
        for leftover in entry.parent.glob(f".{entry.name}.*.partial"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield
