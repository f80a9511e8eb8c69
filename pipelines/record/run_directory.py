"""The folder in which a run leaves its results, owned by one process at a time."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

from ecd_deploy.errors import ArtefactError, DataError, DigestError, RunDirectoryError
from ecd_deploy.files import is_partial, read_verified, write_atomic
from ecd_deploy.pipelines.record.manifest import FileEntry, Manifest, describe_files, read_manifest, write_manifest
from ecd_deploy.pipelines.record.names import EXPORTS_FOLDER, LOCK_NAME, MANIFEST_NAME, ORIGINS, RECIPE_NAME
from ecd_deploy.pipelines.record.recipe_file import recipe_to_toml
from ecd_deploy.recipe.recipe import Recipe, parse_recipe
from ecd_deploy.records import Record
from ecd_deploy.system import lock

_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)  # Windows has no such flag

_logger = logging.getLogger(__name__)

_Model = TypeVar("_Model", bound=Record)


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
        """Write a file and record it, with the SHA-256 of what it was made from: its sources, and `parents` besides.

        Raises:
            ArtefactError: it cannot be written.
        """
        sha256 = write_atomic(self.root / name, data)
        sources = ORIGINS[name].made_from if name in ORIGINS else ()
        recorded = {source: self._manifest.files[source].sha256 for source in sources if source in self._manifest.files}
        entry = FileEntry(sha256=sha256, bytes=len(data), parents={**recorded, **(parents or {})})
        self._update(files=dict(sorted({**self._manifest.files, name: entry}.items())))
        return entry

    def write_json(self, name: str, content: Record) -> FileEntry:
        """Write a model as indented JSON and record it."""
        return self.write(name, content.to_json())

    def read(self, name: str) -> bytes:
        """Read a recorded file; the bytes returned are those whose digest was checked.

        Raises:
            ArtefactError: it is missing, unrecorded, a link, or was changed.
        """
        _refuse_link(self.root, name)
        return read_verified(self.root / name, self._manifest.entry(name).sha256)

    def read_json(self, name: str, model: type[_Model]) -> _Model:
        """Read a recorded JSON file of `ORIGINS`.

        Raises:
            RunDirectoryError: the step that makes it has not been run, or must be run again.
            ArtefactError: it was changed, or is not what it should be.
        """
        self.require(name)
        return model.from_json(self.read(name), f"{self.root / name} is not a {model.__name__}")

    def require(self, name: str) -> None:
        """Check that a file of `ORIGINS` was made, from what is there now.

        Raises:
            RunDirectoryError: the step that makes it has not been run, or must be run again.
        """
        if name not in self._manifest.files:
            raise RunDirectoryError(f"{self.root} has no {name}: run `{self._call(name)}` first")
        if stale := self._manifest.stale(name):
            raise RunDirectoryError(
                f"{self.root}: {stale.file} is derived from another {stale.source} than the one that is there: run "
                f"`{self._call(stale.file)}` again, then the steps after it"
            )

    def _call(self, name: str) -> str:
        step = ORIGINS[name].step
        return f"ecd-deploy {step} {self.root}" + (" --resume" if step == "train" else "")

    def forget(self, name: str) -> None:
        """Take a file off the record and remove it: the step that makes it begins anew."""
        if name in self._manifest.files:
            self._update(files={path: entry for path, entry in self._manifest.files.items() if path != name})
        (self.root / name).unlink(missing_ok=True)

    def record_folder(self, name: str) -> None:
        """Record all files below a folder, or one file, that another component wrote; forget those that are gone."""
        kept = {
            path: entry
            for path, entry in self._manifest.files.items()
            if path != name and not path.startswith(f"{name}/")
        }
        self._update(files=dict(sorted({**kept, **describe_files(self.root, self.root / name)}.items())))

    def bind_data(self, digest: str, *, accept_changes: bool = False) -> None:
        """Record the data's digest on first use, and compare it ever after.

        Raises:
            DataError: the run was made from other data, and changes are not accepted.
        """
        recorded = self._manifest.data_digest
        if recorded is None or accept_changes:
            self._update(data_digest=digest)
        elif recorded != digest:
            raise DataError(f"the data are not those of {self.root}: digest {digest} instead of {recorded}")

    def record_versions(self, versions: dict[str, str]) -> None:
        """Record with which packages the run is made."""
        self._update(versions=versions)

    def _update(self, **changes: object) -> None:
        self._manifest = self._manifest.model_copy(update=changes)
        write_manifest(self.root, self._manifest)


@contextmanager
def create_run(root: Path, recipe: Recipe, *, resume: bool, accept_changes: bool = False) -> Iterator[RunDirectory]:
    """Make a run directory, or with `resume` continue one of the same recipe, and hold it.

    With `accept_changes` the recipe given takes the place of the one recorded.

    Raises:
        RunDirectoryError: it holds something, is in use, or belongs to another recipe.
        ArtefactError: it cannot be written.
    """
    existing = holds_run(root, resume=resume)
    with _hold(root):
        _sweep(root)
        if existing and RECIPE_NAME in read_manifest(root).files:
            yield _reopen(root, recipe, accept_changes=accept_changes)
        else:  # new, or killed before its recipe was recorded
            yield _make(root, Manifest(recipe_digest=recipe.digest()), recipe)


def holds_run(root: Path, *, resume: bool) -> bool:
    """Whether a directory holds a run that is to be resumed; nothing is written.

    Raises:
        RunDirectoryError: it holds a run that is not to be resumed, or something else.
    """
    existing = is_run(root)
    if not existing and root.is_dir() and not all(_is_ours(path) for path in root.iterdir()):
        raise RunDirectoryError(f"{root} is not empty and is not a run directory; choose another --out")
    if existing and not resume:
        raise RunDirectoryError(f"{root} already holds a run; add --resume to continue it, or choose another --out")
    return existing


@contextmanager
def open_run(root: Path) -> Iterator[RunDirectory]:
    """Hold an existing run directory.

    Raises:
        RunDirectoryError: it does not exist or is in use.
        ArtefactError: its recipe or manifest was changed.
    """
    _require_run(root)
    with _hold(root):
        _sweep(root)
        yield _open(root)


def is_run(path: Path) -> bool:
    """Whether a folder is a run directory."""
    return (path / MANIFEST_NAME).is_file()


def read_run(root: Path) -> RunDirectory:
    """Open an existing run directory to read only, without holding it.

    Raises:
        RunDirectoryError: it does not exist.
        ArtefactError: its recipe or manifest was changed.
    """
    _require_run(root)
    return _open(root)


def _require_run(root: Path) -> None:
    if not is_run(root):
        raise RunDirectoryError(f"{root} is not a run directory: it has no {MANIFEST_NAME}")


def _open(root: Path) -> RunDirectory:
    for name in (MANIFEST_NAME, RECIPE_NAME):
        _refuse_link(root, name)
    manifest = read_manifest(root)
    data = read_verified(root / RECIPE_NAME, manifest.entry(RECIPE_NAME).sha256)
    try:
        recipe = parse_recipe(data.decode(), str(root / RECIPE_NAME))
    except UnicodeDecodeError as error:
        raise ArtefactError(f"{root / RECIPE_NAME} is not UTF-8: {error}") from error
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
        _logger.warning("%s\n--accept-changes: the given recipe replaces it", error)
        return _make(root, read_manifest(root).model_copy(update={"recipe_digest": recipe.digest()}), recipe)
    return directory


def _refuse_link(root: Path, name: str) -> None:
    if is_linked(root, name):
        raise ArtefactError(f"{root / name} is a link: a run's files lie in its own directory")


def is_linked(root: Path, name: str) -> bool:
    """Whether a file, or a folder on the way to it, is a link."""
    path = root / name
    return any(part.is_symlink() for part in (path, *path.parents[: len(Path(name).parts) - 1]))


def _sweep(root: Path) -> None:
    """Remove what interrupted writes left; nobody else writes to a directory that is held."""
    for path in [*root.glob(".*"), *(root / EXPORTS_FOLDER).glob(".*")]:
        if is_partial(path) and path.is_file():
            path.unlink(missing_ok=True)


def _is_ours(path: Path) -> bool:
    """Whether a run that was killed before its manifest was whole can have left this."""
    return path.name == LOCK_NAME or is_partial(path)


def _compare_recipes(directory: RunDirectory, recipe: Recipe) -> None:
    if directory.recipe.digest() == recipe.digest():
        return
    recorded, given = directory.recipe.choices(), recipe.choices()
    changed = [
        f"  {key}: recorded was {recorded.get(key)!r}, given is {given.get(key)!r}"
        for key in {**recorded, **given}
        if recorded.get(key) != given.get(key)
    ]
    raise RunDirectoryError(
        f"{directory.root} was made with another recipe:\n"
        + "\n".join(changed)
        + "\nresume it with its own recipe, or with this one by adding --accept-changes"
    )


@contextmanager
def _hold(root: Path) -> Iterator[None]:
    held = _open_lock(root)
    try:
        try:
            lock(held, wait=False)
        except OSError as error:
            raise RunDirectoryError(f"{root} is in use by another run (process {_holder(held)})") from error
        held.truncate(0)
        held.write(f"{os.getpid()}\n")
        held.flush()
        yield
    finally:
        held.close()


def _open_lock(root: Path) -> IO[str]:
    try:
        root.mkdir(parents=True, exist_ok=True)
        # Not through a link: what it points to would be emptied.
        descriptor = os.open(root / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND | _NO_LINKS, 0o644)
        return os.fdopen(descriptor, "a+", encoding="ascii")
    except OSError as error:
        raise ArtefactError(f"cannot write to {root}: {error.strerror}") from error


def _holder(held: IO[str]) -> str:
    held.seek(0)
    return held.read().strip() or "unknown"
