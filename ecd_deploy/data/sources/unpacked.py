"""Encoded images that lie within a table: each in a file of its own, written once, and found there ever after."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from ecd_deploy.data.imagefolder.cache import entry_key, locked
from ecd_deploy.errors import DataError


def unpack(files: Sequence[Path], contents: Iterable[bytes], cache: Path) -> tuple[Path, ...]:
    """Write each image to a file below `cache`, in order, unless that was done before.

    Args:
        files: that hold the images; their names, sizes and times of change tell whether it was done.
        contents: the images, encoded; read only if they are written.
        cache: data.cache_dir, or what stands for it.

    Raises:
        DataError: they cannot be written.
    """
    root = Path(os.path.commonpath([file.absolute().parent for file in files]))
    folder = cache.absolute() / f"{entry_key(root, [file.absolute() for file in files], 'unpacked')}.images"
    try:
        with locked(folder):
            if not folder.is_dir():
                partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
                try:
                    partial.mkdir()
                    for row, content in enumerate(contents):
                        (partial / f"row {row:08}").write_bytes(content)
                    partial.rename(folder)
                except BaseException:
                    shutil.rmtree(partial, ignore_errors=True)
                    raise
    except OSError as error:
        raise DataError(
            f"the images of {files[0]} cannot be unpacked into {cache} (data.cache_dir): {error}"
        ) from error
    return tuple(sorted(folder.iterdir()))
