"""`MANIFEST.json`: the SHA-256 and size of every file of a run, and what it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ecd_deploy.errors import DigestError
from ecd_deploy.files import is_partial, read_bytes, sha256_bytes, sha256_file, write_atomic
from ecd_deploy.pipelines.record.names import MANIFEST_NAME, ORIGINS
from ecd_deploy.records import Record


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or path.as_posix() != name:
        raise ValueError(f"{name!r} is no path below the run directory")
    return name


FileName = Annotated[str, AfterValidator(_inside)]


@dataclass(frozen=True)
class Stale:
    """A file whose source was made anew after it."""

    file: str
    source: str


class FileEntry(Record):
    """One file of a run."""

    sha256: str
    bytes: int
    parents: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of what it was made from, by name: files of this run, and "student" for the proved tensors."""


class Manifest(Record):
    """Every file of a run by its path relative to the run directory.

    The file has one form only, and holds the SHA-256 of its own text without it: any changed byte shows.
    """

    schema_version: Literal[2] = 2
    recipe_digest: str
    data_digest: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    """Of the packages that made the run."""
    files: dict[FileName, FileEntry] = Field(default_factory=dict)
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

    def stale(self, name: str) -> Stale | None:
        """Return a link that does not hold on the way from a file back to its sources, of those the earliest made."""
        sources = ORIGINS[name].made_from
        for source in sources:
            if source in ORIGINS and source in self.files and (found := self.stale(source)):
                return found
        for source in sources:
            now = self.files[source].sha256 if source in self.files else None
            if now != self.entry(name).parents.get(source):
                return Stale(name, source)
        return None


def read_manifest(root: Path) -> Manifest:
    """Read the manifest of a run directory.

    Raises:
        ArtefactError: it cannot be read or is not a manifest.
        DigestError: it is not as it was written.
    """
    path = root / MANIFEST_NAME
    data = read_bytes(path)
    manifest = Manifest.from_json(data, f"{path} is not a manifest")
    if data != _sealed(manifest):
        raise DigestError(f"{path} was changed: its own digest does not match")
    return manifest


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write the manifest, atomically."""
    write_atomic(root / MANIFEST_NAME, _sealed(manifest))


def _sealed(manifest: Manifest) -> bytes:
    digest = sha256_bytes(manifest.model_copy(update={"digest": ""}).to_json())
    return manifest.model_copy(update={"digest": digest}).to_json()


def describe_files(root: Path, folder: Path) -> dict[str, FileEntry]:
    """Entries of a file, or of all files below a folder, by their path relative to `root`."""
    paths = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): FileEntry(sha256=sha256_file(path), bytes=path.stat().st_size)
        for path in paths
        if not is_partial(path)
    }
