"""From the recipe's data section to the images of a run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ecd_deploy.config import DataConfig
from ecd_deploy.data.arrays import open_cifar, open_digits
from ecd_deploy.data.cache import default_cache_folder
from ecd_deploy.data.imagefolder import FolderSource
from ecd_deploy.data.images import DataSplits, ImageSet
from ecd_deploy.data.normalisation import choose_normalisation
from ecd_deploy.data.source import Source
from ecd_deploy.data.subsets import balanced_subset, stratified_cut
from ecd_deploy.errors import DataError


def load_data(config: DataConfig, *, seed: int) -> DataSplits:
    """Read the images of a run and cut the validation split off the training images.

    Args:
        config: the recipe's data section.
        seed: decides over limited subsets and the validation split.

    Raises:
        DataError: folders, labels or images that cannot be used.
        RecipeError: the normalisation given does not fit the images.
    """
    source = _open_source(config)
    chosen_train = balanced_subset(source.train_labels, config.train_limit, seed=seed)
    chosen_test = balanced_subset(source.test_labels, config.test_limit, seed=seed)
    whole, test = source.read(chosen_train, chosen_test)
    kept, cut = stratified_cut(whole.labels, config.validation_fraction, seed=seed)
    train, validation = whole.select(kept), whole.select(cut)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(f"training images have shape {train.images.shape[1:]}, test images {test.images.shape[1:]}")
    return DataSplits(
        train=train,
        validation=validation,
        test=test,
        classes=source.classes,
        normalisation=choose_normalisation(config, train.images),
        digest=data_digest((train, validation, test), source.classes),
    )


def data_digest(splits: tuple[ImageSet, ...], classes: tuple[str, ...]) -> str:
    """SHA-256 over the classes and, for each split, the shape, pixels and labels."""
    digest = hashlib.sha256(json.dumps(classes).encode())
    for split in splits:
        digest.update(json.dumps(tuple(split.images.shape)).encode())
        digest.update(split.images.contiguous().numpy().data)
        digest.update(split.labels.contiguous().numpy().data)
    return digest.hexdigest()


def _open_source(config: DataConfig) -> Source:
    match config.source:
        case "digits":
            return open_digits(config.image_size)
        case "cifar10" | "cifar100":
            return open_cifar(config.source, config.path, config.image_size)
        case "imagefolder":
            if config.path is None:
                raise DataError("data.path: imagefolder needs the folder that holds train/ and test/")
            return FolderSource(
                Path(config.path),
                config.image_size,
                cache_folder=Path(config.cache_dir) if config.cache_dir else default_cache_folder(),
                skip_bad=config.skip_bad,
            )
