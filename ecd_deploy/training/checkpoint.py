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
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors.torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from ecd_deploy.errors import ArtefactError, CheckpointError
from ecd_deploy.files import is_partial, read_verified, sha256_bytes, sync_directory
from ecd_deploy.training.scores import EpochRecord, EpochScore

_WEIGHTS = "weights.safetensors"
_MOMENTUM = "momentum.safetensors"
_STATE = "state.json"
_MANIFEST = "MANIFEST.json"
_FILES = (_WEIGHTS, _MOMENTUM, _STATE)
_NAME = re.compile(r"step-(\d{9,})")
_KEPT = 2

_logger = logging.getLogger(__name__)


class ScalerState(BaseModel):
    """Loss scaling of fp16 training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: float
    growth_tracker: int


class CheckpointState(BaseModel):
    """Everything of a checkpoint that is not a tensor.

    Attributes:
        version: of this layout.
        epoch: epochs done.
        step: optimiser steps done.
        best: the best score so far.
        history: every epoch's record, from which `metrics.jsonl` is restored.
        recipe_digest: of the recipe that was trained.
        data_digest: of the images.
        threads: CPU threads of torch: another count gives other bits.
        processes: over which each step was spread.
        scaler: None unless training in fp16.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    epoch: int
    step: int
    best: EpochScore
    history: tuple[EpochRecord, ...]
    recipe_digest: str
    data_digest: str
    threads: int
    processes: int
    scaler: ScalerState | None = None


@dataclass(frozen=True)
class Checkpoint:
    """The whole training after a step: tensors by name, momentum by parameter name, and the rest."""

    state: CheckpointState
    weights: Mapping[str, Tensor]
    momentum: Mapping[str, Tensor]


class CheckpointStore:
    """The checkpoints of one training, one folder a step; only one process may write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def paths(self) -> list[Path]:
        """Folders of complete checkpoints, oldest first."""
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if _NAME.fullmatch(path.name))

    def path_of(self, step: int) -> Path:
        """The folder of the checkpoint made after `step` steps."""
        return self._folder / f"step-{step:09d}"

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint, then remove all but the newest two and the best.

        Raises:
            CheckpointError: it cannot be written; those before it are untouched.
        """
        path = self.path_of(checkpoint.state.step)
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        try:
            partial.mkdir(parents=True)
            _write_files(partial, checkpoint)
            partial.rename(path)
            sync_directory(self._folder)
            self._prune(best=self.path_of(checkpoint.state.best.step))
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
            contents = {name: read_verified(path / name, digests[name]) for name in _FILES}
            return Checkpoint(
                state=CheckpointState.model_validate_json(contents[_STATE]),
                weights=safetensors.torch.load(contents[_WEIGHTS]),
                momentum=safetensors.torch.load(contents[_MOMENTUM]),
            )
        except (ArtefactError, SafetensorError, ValidationError) as error:
            raise CheckpointError(f"checkpoint {path} is damaged: {error}") from error

    def recover(self) -> None:
        """Sweep what an interrupted save left, and set damaged checkpoints aside if an older one is whole.

        Raises:
            CheckpointError: there are checkpoints and none is whole; nothing is changed then.
        """
        damaged: list[tuple[Path, CheckpointError]] = []
        for path in reversed(self.paths()):
            try:
                self.read(path)
            except CheckpointError as error:
                damaged.append((path, error))
            else:
                break
        else:
            if damaged:
                reasons = "\n  ".join(str(reason) for _, reason in damaged)
                raise CheckpointError(f"no checkpoint below {self._folder} is whole:\n  {reasons}")
        try:
            for path, reason in damaged:
                aside = _set_aside(path)
                _logger.warning("%s; it was set aside as %s and an older checkpoint is used", reason, aside.name)
            self._sweep()
        except OSError as error:
            raise CheckpointError(f"cannot write {self._folder}: {error.strerror}") from error

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

    def _prune(self, best: Path) -> None:
        for path in self.paths()[:-_KEPT]:
            if path != best:
                # renamed first: a half-removed folder must not look like a checkpoint
                leaving = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
                path.rename(leaving)
                shutil.rmtree(leaving)


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    contents = {
        _WEIGHTS: _serialise(checkpoint.weights),
        _MOMENTUM: _serialise(checkpoint.momentum),
        _STATE: checkpoint.state.model_dump_json(indent=2).encode(),
    }
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
    if not isinstance(digests, dict) or set(digests) != set(_FILES):
        raise CheckpointError(f"{path} does not list {', '.join(_FILES)}")
    return digests


def _set_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.corrupt")
    number = 2
    while aside.exists():
        aside = path.with_name(f"{path.name}.corrupt-{number}")
        number += 1
    return path.rename(aside)
