"""`MANIFEST.json`: the SHA-256 and size of every file of a run, and what it was made from."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ecd_deploy.errors import ArtefactError, DigestError
from ecd_deploy.files import is_partial, sha256_bytes, sha256_file, write_atomic
from ecd_deploy.pipelines.record.names import MANIFEST_NAME


class FileEntry(BaseModel):
    """One file of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    bytes: int
    parents: dict[str, str] = {}
    """SHA-256 of what it was made from, by name: a file of this run, or "student" for the proved tensors."""


class Manifest(BaseModel):
    """Every file of a run by its path relative to the run directory.

    The file has one form only, and holds the SHA-256 of its own text without it: any changed byte shows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    recipe_digest: str
    data_digest: str | None = None
    versions: dict[str, str] = {}
    """Of the packages that made the run."""
    files: dict[str, FileEntry] = {}
    digest: str = ""
    """SHA-256 of the file's text with this left empty; written by `write_manifest`."""

    def entry(self, name: str) -> FileEntry:
        """The entry of a file.

        Raises:
            DigestError: the file is not recorded.
        """
        if name not in self.files:
            raise DigestError(f"{name} is not recorded in {MANIFEST_NAME}: it was not written by this run")
        return self.files[name]


def read_manifest(root: Path) -> Manifest:
    """Read the manifest of a run directory.

    Raises:
        ArtefactError: it cannot be read or is not a manifest.
        DigestError: it is not as it was written.
    """
    path = root / MANIFEST_NAME
    try:
        data = path.read_bytes()
        manifest = Manifest.model_validate_json(data)
    except OSError as error:
        raise ArtefactError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        raise ArtefactError(f"{path} is not a manifest: {error.error_count()} fields are wrong") from error
    if data != _sealed(manifest):
        raise DigestError(f"{path} was changed: its digest of itself does not hold")
    return manifest


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write the manifest, atomically."""
    write_atomic(root / MANIFEST_NAME, _sealed(manifest))


def _sealed(manifest: Manifest) -> bytes:
    digest = sha256_bytes(_text(manifest.model_copy(update={"digest": ""})))
    return _text(manifest.model_copy(update={"digest": digest}))


def _text(manifest: Manifest) -> bytes:
    return (manifest.model_dump_json(indent=2) + "\n").encode()


def describe_files(root: Path, folder: Path) -> dict[str, FileEntry]:
    """Entries of a file, or of all files below a folder, by their path relative to `root`."""
    paths = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): FileEntry(sha256=sha256_file(path), bytes=path.stat().st_size)
        for path in paths
        if not is_partial(path)
    }
