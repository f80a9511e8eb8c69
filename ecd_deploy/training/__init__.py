"""Training with Accelerate: schedule, evaluation, metrics, and checkpoints that survive."""

from __future__ import annotations

from ecd_deploy.training.loop import train
from ecd_deploy.training.scores import EpochRecord, EpochScore, TrainingResult
from ecd_deploy.training.weights import load_weights

__all__ = ["EpochRecord", "EpochScore", "TrainingResult", "load_weights", "train"]
