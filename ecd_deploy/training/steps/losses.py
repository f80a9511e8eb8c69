# mypy: untyped-calls-exclude=accelerate

"""Sums of the losses over an epoch, and the watch for one that is not finite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor

from ecd_deploy.distill import LossTerms, TermName
from ecd_deploy.errors import TrainingError
from ecd_deploy.training.checkpoints.state import LossSums

_STEPS_BETWEEN_CHECKS = 50  # reading a loss makes the host wait for the accelerator


@dataclass(frozen=True, kw_only=True)
class MeanLosses:
    """Means over an epoch's images: of the objective and of each of its terms, before factors."""

    total: float
    student: float
    teacher: float | None = None
    ensemble: float | None = None
    branches: float | None = None
    logits: float | None = None
    features: float | None = None
    pretrained: float | None = None


class EpochLosses:
    """Image-weighted sums of the objective and of each of its terms over an epoch, kept on the device.

    What a step does to them on the device (`add`, then `watch`) is the same for every step, so that a CUDA graph can
    hold it; the numbers that change stay on the host, given by `begin_step`.

    Args:
        accelerator: of the training.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._epoch = 0
        self._names: tuple[TermName, ...] = ()
        self._images = 0
        device = accelerator.device
        self._sums = torch.zeros(1 + len(get_args(TermName)), dtype=torch.float64, device=device)
        self._step = 0
        self._bad_steps = torch.tensor(0, device=device)
        self._steps_between_checks = 1 if device.type == "cpu" else _STEPS_BETWEEN_CHECKS

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What `add` and `watch` change, in place."""
        return (self._sums, self._bad_steps)

    def begin_epoch(self, epoch: int, before: tuple[LossSums, ...] = ()) -> None:
        """Start over.

        Args:
            epoch: counted from 1.
            before: each process's sums up to a checkpoint within the epoch; empty at its beginning.
        """
        self._epoch, self._images = epoch, 0
        self._sums.zero_()
        self._bad_steps.zero_()
        if self._accelerator.process_index < len(before):
            own = before[self._accelerator.process_index]
            self._sums[: len(own.sums)] = torch.tensor(own.sums, dtype=torch.float64)
            self._names, self._images = own.names, own.images

    def begin_step(self, step: int, images: int) -> None:
        """Say which step follows, counted from 1 over the training, and of how many images on this process."""
        self._step = step
        self._images += images

    @torch.no_grad()
    def add(self, loss: Tensor, terms: LossTerms, images: int) -> None:
        """Add what one forward gave: `loss` is the total of its terms, all are means over its images."""
        self._names = tuple(term.name for term in terms.terms)
        means = torch.stack([loss, *(term.value for term in terms.terms)])
        self._sums[: len(means)].add_(means, alpha=images)

    @torch.no_grad()
    def watch(self) -> None:
        """End a step: a sum that is not finite stays so, and each step that finds it is counted."""
        nothing = self._sums[0] - self._sums[0]
        self._bad_steps.add_(nothing.ne(nothing))

    def check(self, step: int) -> None:
        """Look for a loss that is not finite: at each step on a CPU, now and then elsewhere.

        Raises:
            TrainingError: naming the first such step and the epoch.
        """
        if step % self._steps_between_checks == 0:
            self.check_now()

    def means(self) -> MeanLosses:
        """Compute the means over the epoch's images, on all processes.

        Raises:
            TrainingError: a loss was not finite, or there was no step.
        """
        self.check_now()
        if not self._images:
            raise TrainingError(f"epoch {self._epoch} had no step, so it has no losses")
        *sums, count = self._accelerator.reduce(self._with_images(), reduction="sum").tolist()
        total, *values = (value / count for value in sums)
        terms = dict(zip(self._names, values, strict=True))
        return MeanLosses(total=total, **{str(name): value for name, value in terms.items()})

    def by_process(self) -> tuple[LossSums, ...]:
        """Every process's sums so far; each process must call this."""
        if not self._images:
            return ()
        rows = self._accelerator.gather(self._with_images().unsqueeze(0)).tolist()
        return tuple(LossSums(names=self._names, sums=tuple(sums), images=int(images)) for *sums, images in rows)

    def _with_images(self) -> Tensor:
        sums = self._sums[: 1 + len(self._names)]
        return torch.cat([sums, sums.new_full((1,), self._images)])

    def check_now(self) -> None:
        """Wait for the accelerator and look for a loss that is not finite.

        Raises:
            TrainingError: naming the first such step and the epoch.
        """
        bad_steps = int(self._bad_steps)
        if bad_steps:
            first = self._step - bad_steps + 1
            raise TrainingError(
                f"the loss is not finite at step {first} (epoch {self._epoch}); the last checkpoint before it is "
                "kept. Lower train.learning_rate, add train.warmup_epochs, or use train.mixed_precision = 'no'"
            )
