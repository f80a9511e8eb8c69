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

_HOMES = {
    "ecd_deploy.training.checkpoints.weights": ["load_weights"],
    "ecd_deploy.training.loop": ["train"],
    "ecd_deploy.training.methods": ["build_training_model"],
    "ecd_deploy.training.scores": ["EpochRecord", "EpochScore", "HeadTop1", "TrainingResult"],
}

if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts any name
    __getattr__ = names_of(__name__, _HOMES)
