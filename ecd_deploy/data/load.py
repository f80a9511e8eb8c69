"""From the recipe's data section to the images of a run."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.data.digest import data_digest, with_files
from ecd_deploy.data.images import DataSplits, ImageFiles, ImageSet
from ecd_deploy.data.normalisation import choose_normalisation
from ecd_deploy.data.overlap import Fingerprints, count_overlap, fingerprint_suspects
from ecd_deploy.data.sources.contract import SourceImages
from ecd_deploy.data.sources.files import FileSource
from ecd_deploy.data.sources.registry import open_source
from ecd_deploy.data.subsets import balanced_subset, stratified_cut
from ecd_deploy.errors import DataError, RecipeError
from ecd_deploy.recipe.data import DataConfig

_SAMPLE_IMAGES = 2048  # of training files: calibration and the measured normalisation are made from these


_logger = logging.getLogger(__name__)


def load_data(config: DataConfig, *, seed: int) -> DataSplits:
    """Read the images of a run and cut the validation split off the training images.

    Nothing is cut off if the fraction is 0 or the images come with a validation folder, which then is the split.
    With `config.loading` "files" the training images stay where they are: their files are judged, and a
    sample of them is read.

    Args:
        config: the recipe's data section.
        seed: decides over limited subsets and the validation split.

    Raises:
        DataError: folders, labels or images that cannot be used, or too many test images that are trained on too.
        RecipeError: the normalisation given does not fit the images.
    """
    source = open_source(config)
    chosen_train = balanced_subset(source.train_labels, config.train_limit, seed=seed)
    chosen_test = balanced_subset(source.test_labels, config.test_limit, seed=seed)
    if config.loading == "files":
        if not isinstance(source, FileSource):
            raise RecipeError(f"data.loading 'files' needs image files, and source '{config.source}' has none: 'cache'")
        return _load_files(config, source, chosen_train, chosen_test, seed=seed)
    found = source.read(chosen_train, chosen_test)
    whole, test = found.train.images, found.test.images
    if whole.images.shape[1:] != test.images.shape[1:]:
        raise DataError(f"training images have shape {whole.images.shape[1:]}, test images {test.images.shape[1:]}")
    overlap = _overlap_of_pixels(config, found)
    train, validation = whole, None if found.validation is None else found.validation.images
    if validation is not None:
        _say_what_validates(config, len(validation))
    else:
        kept, cut = _cut(whole.labels, config.validation_fraction, seed=seed)
        train, validation = whole.select(kept), None if cut is None else whole.select(cut)
    return DataSplits(
        train=train,
        validation=validation,
        test=test,
        classes=source.classes,
        normalisation=choose_normalisation(config, train.images),
        digest=data_digest(_present(train, validation, test), source.classes),
        overlapping_test_images=overlap,
        test_columns=found.test.columns,
    )


def has_validation(config: DataConfig) -> bool:
    """Whether there will be validation images, cut off the training images or in a folder; no image is read."""
    if config.validation_fraction > 0:
        return True
    return open_source(config).has_validation


def _load_files(
    config: DataConfig,
    source: FileSource,
    chosen_train: NDArray[np.int64],
    chosen_test: NDArray[np.int64],
    *,
    seed: int,
) -> DataSplits:
    found = source.check(chosen_train, chosen_test)
    seen = [part.fingerprints for part in (found.train, found.validation) if part is not None]
    overlap = count_overlap(found.test.fingerprints, *seen, most=config.max_test_overlap)
    whole = found.train.files
    validation_files: tuple[ImageFiles, ...]
    if found.validation is not None:
        _say_what_validates(config, len(found.validation.files))
        train_files, validation_files = whole, (found.validation.files,)
    else:
        kept, cut = _cut(whole.labels, config.validation_fraction, seed=seed)
        train_files, validation_files = whole.select(kept), () if cut is None else (whole.select(cut),)
    sample_files = train_files.select(balanced_subset(train_files.labels, _SAMPLE_IMAGES, seed=seed))
    sample, *middle, test = source.decode(sample_files, *validation_files, found.test.files)
    validation = middle[0] if middle else None
    return DataSplits(
        train=sample,
        validation=validation,
        test=test,
        classes=source.classes,
        normalisation=choose_normalisation(config, sample.images),
        digest=with_files(data_digest(_present(sample, validation, test), source.classes), train_files),
        train_files=train_files,
        overlapping_test_images=overlap,
        test_columns=found.test.columns,
    )


def _overlap_of_pixels(config: DataConfig, found: SourceImages) -> int:
    parts = [part for part in (found.test, found.train, found.validation) if part is not None]
    values = fingerprint_suspects(*(part.images.images for part in parts))
    test, *seen = (Fingerprints(taken, part.names) for taken, part in zip(values, parts, strict=True))
    return count_overlap(test, *seen, most=config.max_test_overlap)


def _say_what_validates(config: DataConfig, count: int) -> None:
    unused = f" (data.validation_fraction {config.validation_fraction:g} has no effect)"
    _logger.warning(
        "the %d images of the validation split are validated on, and none is cut off the training images%s",
        count,
        unused if config.validation_fraction else "",
    )


def _cut(
    labels: NDArray[np.int64], fraction: float, *, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Indices of what is trained on and of the validation split; None if there is none."""
    if fraction == 0:
        return np.arange(len(labels)), None
    return stratified_cut(labels, fraction, seed=seed)


def _present(*splits: ImageSet | None) -> tuple[ImageSet, ...]:
    return tuple(split for split in splits if split is not None)
