"""The SHA-256 that a run's data are known by."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from ecd_deploy.data.images import DataSplits, ImageFiles, ImageSet
from ecd_deploy.errors import DataError


def data_digest(splits: tuple[ImageSet, ...], classes: tuple[str, ...]) -> str:
    """SHA-256 over the classes and, for each split, the shape, pixels and labels."""
    digest = hashlib.sha256(json.dumps(classes).encode())
    for split in splits:
        digest.update(json.dumps(split.images.shape).encode())
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels).data)
    return digest.hexdigest()


def digest_of_test(data: DataSplits) -> str:
    """SHA-256 over the classes and the test images with their labels, in their order."""
    return data_digest((data.test,), data.classes)


def with_files(digest: str, files: ImageFiles) -> str:
    """SHA-256 over another digest and each file's path below the root, size and label.

    Raises:
        DataError: a file is not there any more.
    """
    extended = hashlib.sha256(f"{digest} {files.channels}\n".encode())
    for path, label in zip(files.paths, files.labels.tolist(), strict=True):
        try:
            size = path.stat().st_size
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        name = path.relative_to(files.root).as_posix()
        extended.update(f"{json.dumps(name)} {size} {label}\n".encode())
    return extended.hexdigest()
