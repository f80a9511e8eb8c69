"""The recipe's `[data]`: where the images come from and how they are prepared."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from ecd_deploy.errors import did_you_mean
from ecd_deploy.recipe.section import PositiveFloat, PositiveInt, Section
from ecd_deploy.recipe.sides import Sides, check_resize, sides_words

SOURCES_GROUP = "ecd_deploy.sources"
"""Where other packages announce sources: a name, and a callable that takes the `DataConfig` and returns a `Source`."""

_MAX_TEST_OVERLAP = 0.01
_TORCHVISION = "torchvision:"
_HUB = "hub:"
_OF_ARRAYS = ("digits", "cifar10", "cifar100")
_PATHS = {
    "imagefolder": "the folder that holds train/ and test/",
    "csv": "the file that names the images",
    "parquet": "the file, or the folder of files",
    "datasets": "the folder that save_to_disk wrote",
}
_BUILTIN = (*_OF_ARRAYS, *_PATHS)


def source_names() -> tuple[str, ...]:
    """The sources of this package, then those of installed plug-ins; nothing of a plug-in is imported."""
    found = {entry.name for entry in entry_points(group=SOURCES_GROUP)}
    return (*_BUILTIN, *sorted(found.difference(_BUILTIN)))


class DataConfig(Section):
    """Where the images come from and how they are prepared."""

    source: str = Field(
        description="`digits`, scikit-learn's 8x8 ones; `cifar10` or `cifar100`, or another classification set as "
        "`torchvision:NAME`, downloaded where it is missing; `imagefolder`, folders of images, one for each class; "
        "`csv` and `parquet`, tables of images (parquet with the extra [parquet]); `datasets`, what the Hugging Face "
        "library of this name saved to disk, or `hub:OWNER/NAME`, what it downloads (both with the extra [datasets]); "
        "or one of an installed plug-in."
    )
    path: str | None = Field(
        default=None,
        description="For imagefolder the folder of `train/` and `test/`, and `val/` if there is one. For csv and "
        "parquet the file, with the columns path (from the file's folder), label and split (train, validation, test); "
        "parquet may have a column image of encoded images instead of path, and be a folder of files named by their "
        "split, as on the Hugging Face hub. For datasets "
        "the folder. For cifar and torchvision the download folder; default: `data`; likewise for hub, default: the "
        "library's.",
    )
    image_size: Sides | None = Field(
        default=None,
        description="Side in pixels, or [height, width]; other images are scaled to fill it, and their middle is cut "
        "out. Default: as stored.",
    )
    resize: Sides | None = Field(
        default=None,
        description="Pixels that the shorter side of every image is scaled to, or [height, width] that it is scaled to "
        "fill, before the middle of image_size is cut out. Training images too, but for those of random_resized_crop. "
        "Default: image_size.",
    )
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.1,
        description="Share of the training images cut off, by seed, for selecting the best epoch; 0 trains on all of "
        "them, without accuracy by epoch, and needs train.select 'last'. Without effect where imagefolder has `val/` "
        "beside `test/`: the images in there are the validation split.",
    )
    train_limit: PositiveInt | None = Field(
        default=None, description="Use at most this many training images (class-balanced, before the cut)."
    )
    test_limit: PositiveInt | None = Field(default=None, description="Use at most this many test images.")
    max_test_overlap: Annotated[float, Field(ge=0, le=1)] = Field(
        default=_MAX_TEST_OVERLAP,
        description="Largest share of the test images that may be training or validation images too, pixel by pixel.",
    )
    cache_dir: str | None = Field(
        default=None,
        description="Where decoded images of imagefolder are kept. Default: ecd-deploy in the user's cache folder.",
    )
    skip_bad: bool = Field(
        default=False, description="Leave out images of imagefolder that cannot be read; they are counted and listed."
    )
    crop_padding: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Pixels of zero padding before a random crop of the original size; 0 disables it."
    )
    horizontal_flip: bool = Field(default=False, description="Mirror each training image with probability one half.")
    loading: Literal["cache", "files"] = Field(
        default="cache",
        description="Train on images decoded once into the cache, all of one size, or, for imagefolder, on files that "
        "worker processes decode anew each epoch.",
    )
    random_resized_crop: tuple[PositiveFloat, PositiveFloat] | None = Field(
        default=None,
        description="With loading 'files': the least and the largest share of an image's area that is cropped at "
        "random, with an aspect of 3/4 to 4/3, and brought to image_size.",
    )
    workers: Annotated[int, Field(ge=0)] = Field(
        default=2, description="With loading 'files': worker processes for each training process; 0 decodes in it."
    )
    mean: tuple[float, ...] | None = Field(
        default=None, description="Channel means in units of 0..1. Default: measured on the training images."
    )
    std: tuple[PositiveFloat, ...] | None = Field(
        default=None, description="Channel standard deviations in units of 0..1. Default: measured."
    )

    @property
    def may_have_validation(self) -> bool:
        """Whether the source can have validation images of its own; that is seen when it is opened."""
        return self.source not in _OF_ARRAYS

    @property
    def scaled_to_fill(self) -> int | tuple[int, int] | None:
        """What every image is scaled to fill before its middle is cut out; None if images stay as they are."""
        return self.resize or self.image_size

    @field_validator("source")
    @classmethod
    def _known(cls, source: str) -> str:
        if source in _BUILTIN or source.startswith((_TORCHVISION, _HUB)):
            return source  # without a look into every installed package
        names = source_names()
        if source not in names:
            choices = ", ".join((*names, f"{_TORCHVISION}NAME", f"{_HUB}OWNER/NAME"))
            raise ValueError(f"there is no such source{did_you_mean(source, names)}; there are {choices}")
        return source

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.source in _PATHS and self.path is None:
            raise ValueError(f"source '{self.source}' needs path, {_PATHS[self.source]}")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std are given together or not at all")
        if self.resize is not None:
            if self.image_size is None:
                raise ValueError(
                    f"resize {sides_words(self.resize)} needs image_size, the size of the middle that is then cut out"
                )
            check_resize(self.resize, "image_size", self.image_size)
        if self.loading == "files":
            self._check_files()
        elif self.random_resized_crop is not None:
            raise ValueError("random_resized_crop needs loading 'files': with 'cache' all images have one size already")
        return self

    def _check_files(self) -> None:
        if self.source in _OF_ARRAYS or self.source.startswith(_TORCHVISION):
            raise ValueError(
                f"loading 'files' needs source {', '.join(map(repr, _PATHS))} or '{_HUB}...'; for '{self.source}' "
                "it is 'cache'"
            )
        if self.image_size is None:
            raise ValueError("loading 'files' needs image_size, which all images are brought to")
        if self.random_resized_crop is None:
            return
        least, largest = self.random_resized_crop
        if not least <= largest <= 1:
            raise ValueError(f"random_resized_crop [{least}, {largest}] must rise and end at 1 or below")
        if self.crop_padding:
            raise ValueError("crop_padding and random_resized_crop both crop at random: set one of them")
