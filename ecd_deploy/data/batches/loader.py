"""Batches of image files of any sizes, decoded anew each epoch by worker processes."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader, Sampler

from ecd_deploy.data.batch import Batch
from ecd_deploy.data.batches.worker import Decoder, Failed, Made, Request, WorkLog, start_worker
from ecd_deploy.data.images import ImageFiles, Normalisation
from ecd_deploy.data.plan import StepPlan
from ecd_deploy.data.resize import Framing
from ecd_deploy.data.tensors import normalise
from ecd_deploy.errors import DataError
from ecd_deploy.recipe.data import DataConfig

if TYPE_CHECKING:
    from ecd_deploy.data.augmentation.augmenter import Augmenter

_START_METHOD = "fork"  # a worker then ends by itself within seconds if the training is killed


class _Steps(Sampler[Request]):
    """The requests of what is left of an epoch; set anew for each."""

    def __init__(self, plan: StepPlan) -> None:
        self._plan = plan
        self.epoch = 1
        self.first_step = 0

    def __len__(self) -> int:
        return len(self._plan) - self.first_step

    def __iter__(self) -> Iterator[Request]:
        for share in self._plan.shares(self.epoch, self.first_step):
            yield Request(self.epoch, share.indices.numpy(), share.draws.numpy(), share.step_images)


class LoaderBatches:
    """`Batches` of image files: each process makes its share of each step.

    Workers start with the first epoch, stay until `close`, and leave SIGINT and SIGTERM to the training.

    Args:
        files: the training split.
        normalisation: applied on the device, after augmentation.
        plan: which of the files each step takes, and this process of it.
        config: `resize`, `random_resized_crop`, `crop_padding`, `horizontal_flip` and `workers` are used.
        image_size: height and width in pixels.
        augmenter: what else the images go through where they are trained on, if anything.
        device: where batches are wanted.
    """

    def __init__(
        self,
        files: ImageFiles,
        normalisation: Normalisation,
        plan: StepPlan,
        config: DataConfig,
        *,
        image_size: tuple[int, int],
        augmenter: Augmenter | None = None,
        device: torch.device | None = None,
    ) -> None:
        self._files = files
        self._normalisation = normalisation
        self._augmenter = augmenter
        self._device = device
        self._plan = plan
        self._steps = _Steps(plan)
        self._results: Iterator[Made | Failed] = iter(())
        self._log = WorkLog(config.workers)
        decoder = Decoder(
            files,
            Framing.of(image_size, config.resize),
            config.random_resized_crop,
            config.crop_padding,
            config.horizontal_flip,
            plan.seed,
            self._log,
        )
        with _as_many_workers_as_asked_for():
            self._loader: DataLoader[Made | Failed] | None = DataLoader(
                decoder,
                sampler=self._steps,
                batch_size=None,
                num_workers=config.workers,
                persistent_workers=config.workers > 0,
                pin_memory=device is not None and device.type == "cuda",
                worker_init_fn=partial(start_worker, self._log),
                multiprocessing_context=_START_METHOD if config.workers else None,
                generator=torch.Generator(),  # its own: the training's draws do not depend on the loader
            )

    def __len__(self) -> int:
        return len(self._plan)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the epoch's steps, from the one numbered `first_step` (from 0) on; epochs count from 1.

        Raises:
            DataError: a file cannot be read any more, or a worker was killed; the file is named.
        """
        if self._loader is None:
            raise RuntimeError("the batches are closed")
        self._steps.epoch, self._steps.first_step = epoch, first_step
        with _as_many_workers_as_asked_for(), _deaths_of_children_unheeded():
            self._results = iter(self._loader)
        while (made := self._next()) is not None:
            yield self._batch(made)

    def close(self) -> None:
        """End the workers; what held them is nowhere else, not even in the traceback of an error."""
        self._loader = None
        self._results = iter(())

    def _next(self) -> Made | None:
        try:
            made = next(self._results, None)
        except RuntimeError:
            if (death := self._death()) is None:
                raise
            made = Failed(death)
        if isinstance(made, Failed):
            raise DataError(made.reason)
        return made

    def _death(self) -> str | None:
        """Which worker is dead, and what it was at."""
        alive = {child.pid for child in multiprocessing.active_children()}
        for pid, index in self._log.entries():
            if pid not in alive:
                at = "between two images" if index is None else f"while it decoded {self._files.paths[index]}"
                if pid is None:
                    at = "while it started"
                return (
                    f"a worker that decodes images (process {pid or 'unknown'}) was killed {at}. If memory ran out, "
                    "set data.workers lower; --resume continues from the last checkpoint"
                )
        return None

    def _batch(self, made: Made) -> Batch:
        request = made.request
        images = made.images.to(self._device, non_blocking=True)
        if self._augmenter is not None:
            images = self._augmenter.change(images, request.draws, request.epoch)
        batch = Batch(
            normalise(images, self._normalisation, self._device),
            torch.from_numpy(self._files.labels[request.indices]).to(self._device),
            torch.from_numpy(request.indices).to(self._device),
            request.step_images,
        )
        return batch if self._augmenter is None else self._augmenter.finish(batch, request.draws, request.epoch)


@contextmanager
def _as_many_workers_as_asked_for() -> Iterator[None]:
    """Torch advises against more workers than cores; their number is the user's choice."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        yield


@contextmanager
def _deaths_of_children_unheeded() -> Iterator[None]:
    """Keep torch from raising wherever the main thread is when a worker dies: waiting for its batch tells it too."""
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)
