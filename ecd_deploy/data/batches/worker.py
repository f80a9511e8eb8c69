"""What a worker process of the loader does: decode, crop and mirror one process's share of a step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from ecd_deploy.data.augmentation.crop import crop_and_mirror
from ecd_deploy.data.augmentation.resized_crop import choose_box, crop_draws
from ecd_deploy.data.imagefolder.decode import BadImage, read_image
from ecd_deploy.data.images import ImageFiles
from ecd_deploy.data.resize import Framing

_IDLE = -1
_SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Request:
    """One process's share of a step; indices and draws are int64 (n,), see `plan.Share`."""

    epoch: int
    indices: NDArray[np.int64]
    draws: NDArray[np.int64]
    step_images: int


@dataclass(frozen=True)
class Made:
    """A request and its images, uint8 (n, C, H, W)."""

    request: Request
    images: Tensor

    def pin_memory(self) -> Made:
        """The same, in memory from which a GPU copies by itself."""
        return Made(self.request, self.images.pin_memory())


@dataclass(frozen=True)
class Failed:
    """Why a request could not be met."""

    reason: str


class WorkLog:
    """Which file each worker is at, in memory that all processes share."""

    def __init__(self, workers: int) -> None:
        self._entries = _shared(torch.full((workers, 2), _IDLE, dtype=torch.int64))

    def note(self, worker: int, index: int = _IDLE) -> None:
        """Write down that this process is the worker of that number, and is at that file, or at none."""
        self._entries[worker] = torch.tensor([os.getpid(), index])

    def entries(self) -> list[tuple[int | None, int | None]]:
        """Each worker's process, None before it has begun, and the index of its file, if it is at one."""
        return [
            (None if pid == _IDLE else pid, None if index == _IDLE else index) for pid, index in self._entries.tolist()
        ]


@dataclass(frozen=True)
class Decoder(Dataset[Made | Failed]):
    """Makes what is requested; the same in any process.

    Attributes:
        files: the training split.
        framing: to what size, and how without random crops.
        random_resized_crop: least and largest share of the area, or None for the middle that `framing` cuts out.
        crop_padding: pixels of zero padding before a random crop.
        horizontal_flip: mirror with probability one half.
        seed: of the run.
        log: where workers note what they are at.
    """

    files: ImageFiles
    framing: Framing
    random_resized_crop: tuple[float, float] | None
    crop_padding: int
    horizontal_flip: bool
    seed: int
    log: WorkLog = field(repr=False)

    def __getitem__(self, request: Request) -> Made | Failed:
        worker = get_worker_info()
        images = np.empty((len(request.indices), self.files.channels, *self.framing.size), dtype=np.uint8)
        draws = crop_draws(request.draws, seed=self.seed, epoch=request.epoch).tolist()
        bad: list[BadImage] = []
        with warnings.catch_warnings():
            # what Pillow warns of was judged and counted before the training
            warnings.simplefilter("ignore")
            for place, index in enumerate(request.indices.tolist()):
                if worker is not None:
                    self.log.note(worker.id, index)
                found = read_image(self.files.paths[index], self.files.channels, partial(self._fit, draws[place]))
                if isinstance(found, BadImage):
                    bad.append(found)
                else:
                    images[place] = found
        if worker is not None:
            self.log.note(worker.id)
        if bad:
            return Failed(_describe(bad))
        augmented = crop_and_mirror(
            torch.from_numpy(images),
            torch.arange(len(images)),
            torch.from_numpy(request.draws),
            seed=self.seed,
            epoch=request.epoch,
            crop_padding=self.crop_padding,
            horizontal_flip=self.horizontal_flip,
        )
        if worker is None:
            return Made(request, augmented)
        try:
            # here, where it can be told: the queue's own thread would lose the batch
            return Made(request, _shared(augmented))
        except RuntimeError as error:
            return Failed(
                f"a batch of {augmented.nbytes:,} bytes does not fit into shared memory: {error}; "
                "enlarge /dev/shm, or set data.workers lower"
            )

    def _fit(self, draws: list[list[float]], image: Image.Image) -> Image.Image:
        if self.random_resized_crop is None:
            return self.framing.apply(image)
        return choose_box(image.size, self.random_resized_crop, draws).cut(image, self.framing.size)


def start_worker(log: WorkLog, worker: int) -> None:
    """Leave signals to the training, which ends its workers when it has ended its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # blocked in this thread and those that come after it, and taken by one that looks at the sender
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    parent = multiprocessing.parent_process()
    threading.Thread(target=_end_with_parent, args=(parent.pid if parent else None,), daemon=True).start()
    # From here on signals from elsewhere do nothing.
    log.note(worker)


def _end_with_parent(parent: int | None) -> None:
    """End this process if its parent asks for it, or is gone."""
    while os.getppid() == parent:
        signalled = signal.sigtimedwait({signal.SIGTERM}, _SECONDS_BETWEEN_LOOKS)
        if signalled is not None and signalled.si_pid == parent:
            break
    os._exit(0)


def _shared(tensor: Tensor) -> Tensor:
    return tensor.share_memory_()  # type: ignore[no-any-return, no-untyped-call]


def _describe(bad: list[BadImage]) -> str:
    lines = "\n  ".join(f"{image.path}: {_why(image.path, image.reason)}" for image in bad)
    return f"{len(bad)} image(s) that could be used when the training began cannot be read now:\n  {lines}"


def _why(path: Path, reason: str) -> str:
    return reason if path.exists() else "is not there any more"
