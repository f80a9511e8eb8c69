"""Images of a run: sources, splits, normalisation, and augmented batches."""

from __future__ import annotations

from ecd_deploy.data.batches import Batch, TrainBatches, eval_batches
from ecd_deploy.data.images import DataSplits, ImageSet, Normalisation
from ecd_deploy.data.load import load_data

__all__ = ["Batch", "DataSplits", "ImageSet", "Normalisation", "TrainBatches", "eval_batches", "load_data"]
