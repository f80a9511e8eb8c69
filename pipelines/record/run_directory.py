"""The folder in which a run leaves its results, owned by one process at a time."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

from pydantic import BaseModel, ValidationError

from ecd_deploy.errors import ArtefactError, DataError, DigestError, RunDirectoryError
from ecd_deploy.files import is_partial, read_verified, sha256_bytes, write_atomic
from ecd_deploy.pipelines.record.manifest import FileEntry, Manifest, describe_files, read_manifest, write_manifest
from ecd_deploy.pipelines.record.names import LOCK_NAME, MANIFEST_NAME, RECIPE_NAME
from ecd_deploy.pipelines.record.recipe_file import recipe_to_toml
from ecd_deploy.recipe.recipe import Recipe, parse_recipe

_logger = logging.getLogger(__name__)

_Model = TypeVar("_Model", bound=BaseModel)


class RunDirectory:
    """A run directory that this process holds; made by `create_run` or `open_run`.

    Every write goes through here, so that it is atomic and recorded; every read checks the digest.
    """

    def __init__(self, root: Path, recipe: Recipe, manifest: Manifest) -> None:
        self.root = root
        self.recipe = recipe
        self._manifest = manifest

    @property
    def manifest(self) -> Manifest:
        """The manifest as of the last write."""
        return self._manifest

    def write(self, name: str, data: bytes, parents: dict[str, str] | None = None) -> FileEntry:
        """Write a file and record it, with the SHA-256 of what it was made from by name.

        Raises:
            ArtefactError: it cannot be written.
        """
        write_atomic(self.root / name, data)
        entry = FileEntry(sha256=sha256_bytes(data), bytes=len(data), parents=parents or {})
        self._record({name: entry})
        return entry

    def write_json(self, name: str, content: BaseModel) -> FileEntry:
        """Write a model as indented JSON and record it."""
        return self.write(name, (content.model_dump_json(indent=2) + "\n").encode())

    def read(self, name: str) -> bytes:
        """Read a recorded file; the bytes returned are those whose digest was checked.

        Raises:
            ArtefactError: it is missing, unrecorded or was changed.
        """
        return read_verified(self.root / name, self._manifest.entry(name).sha256)

    def read_json(self, name: str, model: type[_Model], *, made_by: str) -> _Model:
        """Read a recorded JSON file; `made_by` is the step to name where it does not exist.

        Raises:
            RunDirectoryError: the step that makes it has not been run.
            ArtefactError: it was changed, or is not what it should be.
        """
        self.require(name, made_by=made_by)
        try:
            return model.model_validate_json(self.read(name))
        except ValidationError as error:
            raise ArtefactError(f"{self.root / name} is not a {model.__name__}: {error}") from error

    def require(self, name: str, *, made_by: str) -> None:
        """Check that a file was made.

        Raises:
            RunDirectoryError: the step that makes it has not been run.
        """
        if name not in self._manifest.files:
            raise RunDirectoryError(f"{self.root} has no {name}: run `ecd-deploy {made_by} {self.root}` first")

    def record_folder(self, name: str) -> None:
        """Record all files below a folder, or one file, that another component wrote; forget those that are gone."""
        kept = {
            path: entry
            for path, entry in self._manifest.files.items()
            if path != name and not path.startswith(f"{name}/")
        }
        self._manifest = self._manifest.model_copy(update={"files": kept})
        self._record(describe_files(self.root, self.root / name))

    def bind_data(self, digest: str, *, accept_changes: bool = False) -> None:
        """Record the data's digest on first use, and compare it ever after.

        Raises:
            DataError: the run was made from other data, and changes are not accepted.
        """
        recorded = self._manifest.data_digest
        if recorded is None or accept_changes:
            self._manifest = self._manifest.model_copy(update={"data_digest": digest})
            write_manifest(self.root, self._manifest)
        elif recorded != digest:
            raise DataError(
                f"the data are not those that {self.root} was made from: digest {digest}, recorded was {recorded}"
            )

    def record_versions(self, versions: dict[str, str]) -> None:
        """Record with which packages the run is made."""
        self._manifest = self._manifest.model_copy(update={"versions": versions})
        write_manifest(self.root, self._manifest)

    def verify(self) -> None:
        """Check every recorded file.

        Raises:
            ArtefactError: naming the first that is missing or changed.
        """
        for name in self._manifest.files:
            self.read(name)

    def _record(self, entries: dict[str, FileEntry]) -> None:
        files = dict(sorted({**self._manifest.files, **entries}.items()))
        self._manifest = self._manifest.model_copy(update={"files": files})
        write_manifest(self.root, self._manifest)


@contextmanager
def create_run(root: Path, recipe: Recipe, *, resume: bool, accept_changes: bool = False) -> Iterator[RunDirectory]:
    """Make a run directory, or with `resume` continue one of the same recipe, and hold it.

    With `accept_changes` the recipe given takes the place of the one recorded.

    Raises:
        RunDirectoryError: it holds something, is in use, or belongs to another recipe.
        ArtefactError: it cannot be written.
    """
    existing = (root / MANIFEST_NAME).is_file()
    if not existing and root.is_dir() and not all(_is_ours(path) for path in root.iterdir()):
        raise RunDirectoryError(f"{root} is not empty and is not a run directory; choose another --out")
    if existing and not resume:
        raise RunDirectoryError(f"{root} already holds a run; add --resume to continue it, or choose another --out")
    with _hold(root):
        if existing and RECIPE_NAME in read_manifest(root).files:
            yield _reopen(root, recipe, accept_changes=accept_changes)
        else:  # new, or killed before its recipe was recorded
            yield _make(root, Manifest(recipe_digest=recipe.digest()), recipe)


@contextmanager
def open_run(root: Path) -> Iterator[RunDirectory]:
    """Hold an existing run directory.

    Raises:
        RunDirectoryError: it does not exist or is in use.
        ArtefactError: its recipe or manifest was changed.
    """
    if not (root / MANIFEST_NAME).is_file():
        raise RunDirectoryError(f"{root} is not a run directory: it has no {MANIFEST_NAME}")
    with _hold(root):
        yield _open(root)


def read_run(root: Path) -> RunDirectory:
    """Open an existing run directory to read only, without holding it.

    Raises:
        RunDirectoryError: it does not exist.
        ArtefactError: its recipe or manifest was changed.
    """
    if not (root / MANIFEST_NAME).is_file():
        raise RunDirectoryError(f"{root} is not a run directory: it has no {MANIFEST_NAME}")
    return _open(root)


def _open(root: Path) -> RunDirectory:
    manifest = read_manifest(root)
    text = read_verified(root / RECIPE_NAME, manifest.entry(RECIPE_NAME).sha256).decode()
    recipe = parse_recipe(text, str(root / RECIPE_NAME))
    return RunDirectory(root, recipe, manifest)


def _make(root: Path, manifest: Manifest, recipe: Recipe) -> RunDirectory:
    write_manifest(root, manifest)
    directory = RunDirectory(root, recipe, manifest)
    directory.write(RECIPE_NAME, recipe_to_toml(recipe).encode())
    return directory


def _reopen(root: Path, recipe: Recipe, *, accept_changes: bool) -> RunDirectory:
    try:
        directory = _open(root)
        _compare_recipes(directory, recipe)
    except (DigestError, RunDirectoryError) as error:
        if not accept_changes:
            raise
        _logger.warning("%s\n--accept-changes: the recipe given takes its place", error)
        return _make(root, read_manifest(root).model_copy(update={"recipe_digest": recipe.digest()}), recipe)
    return directory


def _is_ours(path: Path) -> bool:
    """Whether a run that was killed before its manifest was whole can have left this."""
    return path.name == LOCK_NAME or is_partial(path)


def _compare_recipes(directory: RunDirectory, recipe: Recipe) -> None:
    if directory.recipe.digest() == recipe.digest():
        return
    recorded, given = recipe_to_toml(directory.recipe).splitlines(), recipe_to_toml(recipe).splitlines()
    changed = [f"  recorded {line}" for line in recorded if line not in given]
    changed += [f"  given    {line}" for line in given if line not in recorded]
    raise RunDirectoryError(
        f"{directory.root} was made by another recipe:\n"
        + "\n".join(changed)
        + "\nresume it with its own recipe, or with this one by adding --accept-changes"
    )


@contextmanager
def _hold(root: Path) -> Iterator[None]:
    lock = _open_lock(root)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunDirectoryError(f"{root} is in use by another run (process {_holder(lock)})") from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
    finally:
        lock.close()


def _open_lock(root: Path) -> IO[str]:
    try:
        root.mkdir(parents=True, exist_ok=True)
        return (root / LOCK_NAME).open("a+", encoding="ascii")
    except OSError as error:
        raise ArtefactError(f"cannot write to {root}: {error.strerror}") from error


def _holder(lock: IO[str]) -> str:
    lock.seek(0)
    return lock.read().strip() or "unknown"
