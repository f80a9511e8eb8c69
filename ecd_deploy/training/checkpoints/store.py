"""Checkpoints that are whole or absent: a folder of tensors and JSON, its manifest, and a rename.

A folder is written under a temporary name, flushed, given the SHA-256 of each of its files, renamed
and made durable, and only then are older ones removed. Tensors are in safetensors, everything else
is JSON: nothing is unpickled.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ecd_deploy.errors import ArtefactError, CheckpointError
from ecd_deploy.files import is_partial, read_verified, sha256_bytes, sync_directory
from ecd_deploy.training.checkpoints.state import Checkpoint, CheckpointState

_WEIGHTS = "weights.safetensors"
_OPTIMIZER = "momentum.safetensors"
_AVERAGE = "average.safetensors"  # only where there is one
_STATE = "state.json"
_MANIFEST = "MANIFEST.json"
_FILES = (_WEIGHTS, _OPTIMIZER, _STATE)
_NAME = re.compile(r"step-(\d{9,})(-running)?")
_RUNNING = "-running"
_KEPT = 2

_logger = logging.getLogger(__name__)


class CheckpointStore:
    """The checkpoints of one training, one folder a step; only one process may write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def paths(self) -> list[Path]:
        """Folders of complete checkpoints, oldest first."""
        if not self._folder.is_dir():
            return []
        return sorted((path for path in self._folder.iterdir() if _NAME.fullmatch(path.name)), key=_age)

    def path_of(self, step: int, *, running: bool = False) -> Path:
        """The folder of the checkpoint made after `step` steps: at the end of an epoch, or while it is running."""
        return self._folder / f"step-{step:09d}{_RUNNING if running else ''}"

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint, then remove all but the newest two and the best ones that these refer to.

        Raises:
            CheckpointError: it cannot be written; those before it are untouched.
        """
        path = self.path_of(checkpoint.state.step, running=checkpoint.state.running is not None)
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        try:
            partial.mkdir(parents=True)
            _write_files(partial, checkpoint)
            partial.rename(path)
            sync_directory(self._folder)
            self._prune()
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise CheckpointError(f"cannot write checkpoint {path}: {error.strerror}") from error
        return path

    def read(self, path: Path) -> Checkpoint:
        """Read a checkpoint after verifying the digest of each file.

        Raises:
            CheckpointError: a file is missing, changed or unreadable.
        """
        try:
            digests = _read_manifest(path / _MANIFEST)
            contents = {name: read_verified(path / name, digests[name]) for name in digests}
            return Checkpoint(
                state=CheckpointState.from_json(contents[_STATE], f"{_STATE} is not the state of a training"),
                weights=safetensors.torch.load(contents[_WEIGHTS]),
                optimizer=safetensors.torch.load(contents[_OPTIMIZER]),
                average=safetensors.torch.load(contents[_AVERAGE]) if _AVERAGE in contents else {},
            )
        except (ArtefactError, SafetensorError) as error:
            raise CheckpointError(f"checkpoint {path} is damaged: {error}") from error

    def recover(self) -> Checkpoint | None:
        """Sweep what an interrupted save left, and set damaged checkpoints aside if an older one is whole.

        Returns:
            The newest whole one; None if there are no checkpoints.

        Raises:
            CheckpointError: there are checkpoints and none is whole; nothing is changed then.
        """
        damaged: list[tuple[Path, CheckpointError]] = []
        newest: Checkpoint | None = None
        for path in reversed(self.paths()):
            try:
                newest = self.read(path)
                break
            except CheckpointError as error:
                damaged.append((path, error))
        if newest is None and damaged:
            reasons = "\n  ".join(str(reason) for _, reason in damaged)
            raise CheckpointError(f"no checkpoint below {self._folder} is whole:\n  {reasons}")
        try:
            for path, reason in damaged:
                aside = _set_aside(path)
                _logger.warning("%s; it was set aside as %s and an older checkpoint is used", reason, aside.name)
            self._sweep()
        except OSError as error:
            raise CheckpointError(f"cannot write {self._folder}: {error.strerror}") from error
        return newest

    def newest(self) -> Checkpoint | None:
        """Read the newest checkpoint; None if there is none.

        Raises:
            CheckpointError: it is damaged.
        """
        paths = self.paths()
        return self.read(paths[-1]) if paths else None

    def _sweep(self) -> None:
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if is_partial(path):
                    shutil.rmtree(path)

    def _prune(self) -> None:
        paths = self.paths()
        kept = set(paths[-_KEPT:])
        # the older of the two serves if the newer is damaged, so what it calls best must be there as well
        best = {self._best_of(path) for path in kept}
        for path in paths:
            if path not in kept | best:
                # renamed first: a half-removed folder must not look like a checkpoint
                leaving = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
                path.rename(leaving)
                shutil.rmtree(leaving)

    def _best_of(self, path: Path) -> Path | None:
        try:
            best = CheckpointState.from_json((path / _STATE).read_bytes(), _STATE).best
        except (OSError, ArtefactError):
            return None  # damaged meanwhile: `recover` finds that out when it matters
        return None if best is None else self.path_of(best.step)


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    contents = {
        _WEIGHTS: _serialise(checkpoint.weights),
        _OPTIMIZER: _serialise(checkpoint.optimizer),
        _STATE: checkpoint.state.to_json(),
    }
    if checkpoint.average:
        contents[_AVERAGE] = _serialise(checkpoint.average)
    digests = {name: sha256_bytes(data) for name, data in contents.items()}
    contents[_MANIFEST] = json.dumps(digests, indent=2).encode()
    for name, data in contents.items():
        with (folder / name).open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    sync_directory(folder)


def _serialise(tensors: Mapping[str, Tensor]) -> bytes:
    # cloned: safetensors refuses tensors that share storage, as tied weights do
    return safetensors.torch.save(
        {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    )


def _read_manifest(path: Path) -> dict[str, str]:
    try:
        digests = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(digests, dict) or set(digests) - {_AVERAGE} != set(_FILES):
        raise CheckpointError(f"{path} does not list {', '.join(_FILES)}")
    return digests


def _age(path: Path) -> tuple[int, bool]:
    # of two after the same step, the one with the epoch finished is the newer
    name = path.name.removesuffix(_RUNNING)
    return int(name.removeprefix("step-")), not path.name.endswith(_RUNNING)


def _set_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.corrupt")
    number = 2
    while aside.exists():
        aside = path.with_name(f"{path.name}.corrupt-{number}")
        number += 1
    return path.rename(aside)
