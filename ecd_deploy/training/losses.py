# mypy: untyped-calls-exclude=accelerate

"""Sums of the losses over an epoch, and the watch for one that is not finite."""

from __future__ import annotations

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor
from torch.nn import functional

from ecd_deploy.errors import TrainingError
from ecd_deploy.training.state import LossSums

_STEPS_BETWEEN_CHECKS = 50  # reading a loss makes the host wait for the accelerator
_NONE = -1


class EpochLosses:
    """Image-weighted sums of the objective and of each head's cross-entropy, kept on the device.

    Args:
        epoch: counted from 1.
        accelerator: of the training.
        label_smoothing: of the objective.
        before: each process's sums up to a checkpoint within the epoch; empty at its beginning.
    """

    def __init__(
        self, epoch: int, accelerator: Accelerator, *, label_smoothing: float, before: tuple[LossSums, ...] = ()
    ) -> None:
        self._epoch = epoch
        self._accelerator = accelerator
        self._label_smoothing = label_smoothing
        self._sums: Tensor | None = None
        self._images = 0
        if accelerator.process_index < len(before):
            own = before[accelerator.process_index]
            self._sums = torch.tensor(own.sums, dtype=torch.float64, device=accelerator.device)
            self._images = own.images
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
            self.check_now()

    def means(self) -> tuple[float, ...]:
        """Mean objective and mean cross-entropy of each head over the epoch's images, on all processes.

        Raises:
            TrainingError: a loss was not finite.
        """
        self.check_now()
        own = self._with_images()
        if own is None:
            return ()
        *sums, count = self._accelerator.reduce(own, reduction="sum").tolist()
        return tuple(total / count for total in sums)

    def by_process(self) -> tuple[LossSums, ...]:
        """Every process's sums so far; each process must call this."""
        own = self._with_images()
        if own is None:
            return ()
        rows = self._accelerator.gather(own.unsqueeze(0)).tolist()
        return tuple(LossSums(sums=tuple(sums), images=int(images)) for *sums, images in rows)

    def _with_images(self) -> Tensor | None:
        if self._sums is None:
            return None
        return torch.cat([self._sums, self._sums.new_tensor([self._images])])

    def check_now(self) -> None:
        """Wait for the accelerator and look for a loss that is not finite.

        Raises:
            TrainingError: naming the first such step and the epoch.
        """
        step = int(self._first_bad_step)
        if step != _NONE:
            raise TrainingError(
                f"the loss is not finite at step {step} (epoch {self._epoch}); the last checkpoint before it is "
                "kept. Lower train.learning_rate, add train.warmup_epochs, or use train.mixed_precision = 'no'"
            )
