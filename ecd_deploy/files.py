"""Files that are either whole or absent, and their SHA-256 digests."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from errno import EISDIR
from pathlib import Path

from ecd_deploy.errors import ArtefactError, DigestError, UsageError

_PARTIAL_SUFFIX = ".partial"
_BLOCK_BYTES = 1 << 20
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of the file's bytes in hexadecimal.

    Raises:
        ArtefactError: the file is missing or cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise ArtefactError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()


def sync_directory(path: Path) -> None:
    """Flush a directory's entries to disk, so that a rename survives a power cut; Windows opens no directories."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes) -> str:
    """Write `data` under its final name only when it is complete; return its SHA-256.

    What stood there before is kept until the new bytes are on disk.

    Raises:
        ArtefactError: the folder cannot be written or the disk is full.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PARTIAL_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise ArtefactError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with suppress(OSError):  # after the rename, and where the folder itself is missing, there is none
            partial.unlink()
    return sha256_bytes(data)


def check_writable(path: Path, option: str) -> None:
    """Check before long work that `write_atomic` can write a file that an option names; nothing is left behind.

    Raises:
        UsageError: it is a folder, or nothing can be written where it would lie.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
        with tempfile.TemporaryFile(dir=next(folder for folder in path.parents if folder.exists())):
            pass
    except OSError as error:
        raise UsageError(f"{option} {path} cannot be written: {error.strerror}") from error


def read_bytes(path: Path) -> bytes:
    """Read a whole file.

    Raises:
        ArtefactError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtefactError(f"cannot read {path}: {error.strerror}") from error


def read_verified(path: Path, sha256: str) -> bytes:
    """Read a file whose digest is known; the bytes returned are the bytes checked.

    Raises:
        ArtefactError: the file is missing or cannot be read.
        DigestError: the digest differs.
    """
    data = read_bytes(path)
    found = sha256_bytes(data)
    if found != sha256:
        raise DigestError(f"{path} was changed after it was written: SHA-256 is {found} instead of {sha256}")
    return data


def stored_zip(parts: Mapping[str, bytes]) -> bytes:
    """A zip archive, not compressed and without times: the same parts in the same order give the same bytes."""
    import zipfile

    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name, _ZIP_EPOCH), content)
    return result.getvalue()


def is_partial(path: Path) -> bool:
    """Whether the path is what an interrupted write left behind."""
    return path.name.startswith(".") and path.name.endswith(_PARTIAL_SUFFIX)
