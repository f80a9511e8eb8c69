"""From the recipe's data section to the images of a run."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ecd_deploy.data.arrays import open_cifar, open_digits
from ecd_deploy.data.cache import default_cache_folder
from ecd_deploy.data.digest import data_digest, with_files
from ecd_deploy.data.imagefolder import FolderSource
from ecd_deploy.data.images import DataSplits, ImageSet
from ecd_deploy.data.normalisation import choose_normalisation
from ecd_deploy.data.resize import Framing
from ecd_deploy.data.source import Source
from ecd_deploy.data.subsets import balanced_subset, stratified_cut
from ecd_deploy.errors import DataError
from ecd_deploy.recipe.data import DataConfig

_SAMPLE_IMAGES = 2048  # of training files: calibration and the measured normalisation are made from these


def load_data(config: DataConfig, *, seed: int) -> DataSplits:
    """Read the images of a run and cut the validation split, if there is one, off the training images.

    With `config.loading` "files" the training images stay where they are: their files are judged, and a
    sample of them is read.

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
    if config.loading == "files" and isinstance(source, FolderSource):
        return _load_files(config, source, chosen_train, chosen_test, seed=seed)
    whole, test = source.read(chosen_train, chosen_test)
    kept, cut = _cut(whole.labels, config.validation_fraction, seed=seed)
    train, validation = whole.select(kept), None if cut is None else whole.select(cut)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(f"training images have shape {train.images.shape[1:]}, test images {test.images.shape[1:]}")
    return DataSplits(
        train=train,
        validation=validation,
        test=test,
        classes=source.classes,
        normalisation=choose_normalisation(config, train.images),
        digest=data_digest(_present(train, validation, test), source.classes),
    )


def _load_files(
    config: DataConfig, source: FolderSource, chosen_train: Tensor, chosen_test: Tensor, *, seed: int
) -> DataSplits:
    whole, test_files = source.check(chosen_train, chosen_test)
    kept, cut = _cut(whole.labels, config.validation_fraction, seed=seed)
    train_files = whole.select(kept)
    sample_files = train_files.select(balanced_subset(train_files.labels, _SAMPLE_IMAGES, seed=seed))
    validation_files = () if cut is None else (whole.select(cut),)
    sample, *middle, test = source.decode(sample_files, *validation_files, test_files)
    validation = middle[0] if middle else None
    return DataSplits(
        train=sample,
        validation=validation,
        test=test,
        classes=source.classes,
        normalisation=choose_normalisation(config, sample.images),
        digest=with_files(data_digest(_present(sample, validation, test), source.classes), train_files),
        train_files=train_files,
    )


def _cut(labels: Tensor, fraction: float, *, seed: int) -> tuple[Tensor, Tensor | None]:
    """Indices of what is trained on and of the validation split; None if there is none."""
    if fraction == 0:
        return torch.arange(len(labels)), None
    return stratified_cut(labels, fraction, seed=seed)


def _present(*splits: ImageSet | None) -> tuple[ImageSet, ...]:
    return tuple(split for split in splits if split is not None)


def _open_source(config: DataConfig) -> Source:
    framing = Framing.of(config.image_size, config.resize)
    match config.source:
        case "digits":
            return open_digits(framing)
        case "cifar10" | "cifar100":
            return open_cifar(config.source, config.path, framing)
        case "imagefolder":
            return _open_folder(config, framing)


def _open_folder(config: DataConfig, framing: Framing | None) -> FolderSource:
    if config.path is None:
        raise DataError("data.path: imagefolder needs the folder that holds train/ and test/")
    return FolderSource(
        Path(config.path),
        framing,
        cache_folder=Path(config.cache_dir) if config.cache_dir else default_cache_folder(),
        skip_bad=config.skip_bad,
    )
