"""A training's accuracy by epoch in words, and why there may be none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ecd_deploy.training import TrainingResult

NO_VALIDATION: Final = (
    "every training image was trained on (data.validation_fraction is 0), so that no epoch has a validation accuracy "
    "and none is known as the best"
)


def describe_training(training: TrainingResult) -> str:
    """The validation top-1 of the last and of the best epoch, or why there is none."""
    last, best = training.last.validation_top1, training.best
    if last is None or best is None or best.validation_top1 is None:
        return f"no validation top-1: {NO_VALIDATION}"
    return f"validation top-1: last {last:.2%}, best {best.validation_top1:.2%} (epoch {best.epoch})"
