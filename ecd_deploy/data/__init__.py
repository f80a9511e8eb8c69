"""Images of a run: sources, splits, normalisation, and augmented batches."""

from __future__ import annotations

from ecd_deploy.data.batches import Batch, Batches, TrainBatches, eval_batches
from ecd_deploy.data.images import DataSplits, ImageFiles, ImageSet, Normalisation
from ecd_deploy.data.load import has_validation, load_data
from ecd_deploy.data.loader_batches import LoaderBatches
from ecd_deploy.data.subsets import balanced_subset

__all__ = [
    "Batch",
    "Batches",
    "DataSplits",
    "ImageFiles",
    "ImageSet",
    "LoaderBatches",
    "Normalisation",
    "TrainBatches",
    "balanced_subset",
    "eval_batches",
    "has_validation",
    "load_data",
]
