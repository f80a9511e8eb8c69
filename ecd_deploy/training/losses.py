# mypy: untyped-calls-exclude=accelerate

"""Sums of the losses over an epoch, and the watch for one that is not finite."""

from __future__ import annotations

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor
from torch.nn import functional

from ecd_deploy.errors import TrainingError

_STEPS_BETWEEN_CHECKS = 50  # reading a loss makes the host wait for the accelerator
_NONE = -1


class EpochLosses:
    """Image-weighted sums of the objective and of each head's cross-entropy, kept on the device."""

    def __init__(self, epoch: int, accelerator: Accelerator, *, label_smoothing: float) -> None:
        self._epoch = epoch
        self._accelerator = accelerator
        self._label_smoothing = label_smoothing
        self._sums: Tensor | None = None
        self._images = 0
        self._first_bad_step = torch.tensor(_NONE, device=accelerator.device)
        self._steps_between_checks = 1 if accelerator.device.type == "cpu" else _STEPS_BETWEEN_CHECKS

    @torch.no_grad()
    def add(self, step: int, loss: Tensor, outputs: tuple[Tensor, ...], labels: Tensor) -> None:
        """Add a forward's loss, a mean over its images; outputs are logits (n, classes), labels (n,)."""
        heads = [functional.cross_entropy(logits, labels, label_smoothing=self._label_smoothing) for logits in outputs]
        means = torch.stack([loss.detach(), *heads]).double()
        self._sums = means * len(labels) if self._sums is None else self._sums + means * len(labels)
        self._images += len(labels)
        is_new = ~torch.isfinite(loss) & (self._first_bad_step == _NONE)
        self._first_bad_step = torch.where(is_new, step, self._first_bad_step)

    def check(self, step: int) -> None:
        """Look for a loss that is not finite: at each step on a CPU, now and then elsewhere.

        Raises:
            TrainingError: naming the first such step and the epoch.
        """
        if step % self._steps_between_checks == 0:
            self._check()

    def means(self) -> tuple[float, ...]:
        """Mean objective and mean cross-entropy of each head over the epoch's images, on all processes.

        Raises:
            TrainingError: a loss was not finite.
        """
        self._check()
        if self._sums is None:
            return ()
        images = torch.tensor([self._images], dtype=torch.float64, device=self._accelerator.device)
        *sums, count = self._accelerator.reduce(torch.cat([self._sums, images]), reduction="sum").tolist()
        return tuple(total / count for total in sums)

    def _check(self) -> None:
        step = int(self._first_bad_step)
        if step != _NONE:
            raise TrainingError(
                f"the loss is not finite at step {step} (epoch {self._epoch}); the checkpoint of the epoch before is "
                "kept. Lower train.learning_rate, add train.warmup_epochs, or use train.mixed_precision = 'no'"
            )
