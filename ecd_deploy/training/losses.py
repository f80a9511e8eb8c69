# mypy: untyped-calls-exclude=accelerate

"""Sums of the losses over an epoch, and the watch for one that is not finite."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor

from ecd_deploy.distill import LossTerms, TermName
from ecd_deploy.errors import TrainingError
from ecd_deploy.training.state import LossSums

_STEPS_BETWEEN_CHECKS = 50  # reading a loss makes the host wait for the accelerator
_NONE = -1


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
    """Image-weighted sums of the objective and of each of its terms, kept on the device.

    Args:
        epoch: counted from 1.
        accelerator: of the training.
        before: each process's sums up to a checkpoint within the epoch; empty at its beginning.
    """

    def __init__(self, epoch: int, accelerator: Accelerator, *, before: tuple[LossSums, ...] = ()) -> None:
        self._epoch = epoch
        self._accelerator = accelerator
        self._names: tuple[TermName, ...] = ()
        self._sums: Tensor | None = None
        self._images = 0
        if accelerator.process_index < len(before):
            own = before[accelerator.process_index]
            self._sums = torch.tensor(own.sums, dtype=torch.float64, device=accelerator.device)
            self._names, self._images = own.names, own.images
        self._first_bad_step = torch.tensor(_NONE, device=accelerator.device)
        self._steps_between_checks = 1 if accelerator.device.type == "cpu" else _STEPS_BETWEEN_CHECKS

    @torch.no_grad()
    def add(self, step: int, loss: Tensor, terms: LossTerms, images: int) -> None:
        """Add what one forward gave: `loss` is the total of its terms, all are means over its images."""
        self._names = tuple(term.name for term in terms.terms)
        means = torch.stack([loss, *(term.value for term in terms.terms)]).double()
        self._sums = means * images if self._sums is None else self._sums + means * images
        self._images += images
        is_new = ~torch.isfinite(loss) & (self._first_bad_step == _NONE)
        self._first_bad_step = torch.where(is_new, step, self._first_bad_step)

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
        own = self._with_images()
        if own is None or not self._names:
            raise TrainingError(f"epoch {self._epoch} had no step, so it has no losses")
        *sums, count = self._accelerator.reduce(own, reduction="sum").tolist()
        total, *values = (value / count for value in sums)
        terms = dict(zip(self._names, values, strict=True))
        return MeanLosses(total=total, **{str(name): value for name, value in terms.items()})

    def by_process(self) -> tuple[LossSums, ...]:
        """Every process's sums so far; each process must call this."""
        own = self._with_images()
        if own is None:
            return ()
        rows = self._accelerator.gather(own.unsqueeze(0)).tolist()
        return tuple(LossSums(names=self._names, sums=tuple(sums), images=int(images)) for *sums, images in rows)

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
