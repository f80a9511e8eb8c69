"""Images of a run: sources, splits, normalisation, and augmented batches.

Images are numpy arrays, and read without torch; batches to train on are tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecd_deploy.lazy import names_of

if TYPE_CHECKING:
    from ecd_deploy.data.batch import Batch
    from ecd_deploy.data.batches.loader import LoaderBatches
    from ecd_deploy.data.batches.memory import Batches, TrainBatches, eval_batches
    from ecd_deploy.data.class_sizes import check_classes, logit_offsets, loss_weights
    from ecd_deploy.data.images import DataSplits, ImageFiles, ImageSet, Normalisation
    from ecd_deploy.data.load import has_validation, load_data
    from ecd_deploy.data.subsets import balanced_subset
    from ecd_deploy.data.tensors import ImageTensors, normalise

__all__ = [
    "Batch",
    "Batches",
    "DataSplits",
    "ImageFiles",
    "ImageSet",
    "ImageTensors",
    "LoaderBatches",
    "Normalisation",
    "TrainBatches",
    "balanced_subset",
    "check_classes",
    "eval_batches",
    "has_validation",
    "load_data",
    "logit_offsets",
    "loss_weights",
    "normalise",
]

_HOMES = {
    "ecd_deploy.data.batch": ["Batch"],
    "ecd_deploy.data.batches.loader": ["LoaderBatches"],
    "ecd_deploy.data.batches.memory": ["Batches", "TrainBatches", "eval_batches"],
    "ecd_deploy.data.class_sizes": ["check_classes", "logit_offsets", "loss_weights"],
    "ecd_deploy.data.images": ["DataSplits", "ImageFiles", "ImageSet", "Normalisation"],
    "ecd_deploy.data.load": ["has_validation", "load_data"],
    "ecd_deploy.data.subsets": ["balanced_subset"],
    "ecd_deploy.data.tensors": ["ImageTensors", "normalise"],
}

if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts any name
    __getattr__ = names_of(__name__, _HOMES)
