"""Training with Accelerate: schedule, evaluation, metrics, and checkpoints that survive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecd_deploy.lazy import names_of

if TYPE_CHECKING:
    from ecd_deploy.training.checkpoints.weights import load_weights
    from ecd_deploy.training.loop import train
    from ecd_deploy.training.methods import build_training_model
    from ecd_deploy.training.scores import EpochRecord, EpochScore, HeadTop1, TrainingResult

__all__ = ["EpochRecord", "EpochScore", "HeadTop1", "TrainingResult", "build_training_model", "load_weights", "train"]

if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts any name
    __getattr__ = names_of(
        __name__,
        {
            "EpochRecord": "ecd_deploy.training.scores",
            "EpochScore": "ecd_deploy.training.scores",
            "HeadTop1": "ecd_deploy.training.scores",
            "TrainingResult": "ecd_deploy.training.scores",
            "build_training_model": "ecd_deploy.training.methods",
            "load_weights": "ecd_deploy.training.checkpoints.weights",
            "train": "ecd_deploy.training.loop",
        },
    )
