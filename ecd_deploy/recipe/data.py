"""The recipe's `[data]`: where the images come from and how they are prepared."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ecd_deploy.recipe.section import PositiveFloat, PositiveInt, Section

_MAX_TEST_OVERLAP = 0.01


class DataConfig(Section):
    """Where the images come from and how they are prepared."""

    source: Literal["digits", "cifar10", "cifar100", "imagefolder"] = Field(
        description="scikit-learn's 8x8 digits; CIFAR-10 or CIFAR-100, downloaded where they are missing; or folders "
        "of images, one for each class."
    )
    path: str | None = Field(
        default=None,
        description="Root folder: `train/` and `test/`, and `val/` if there is one, for imagefolder; the download "
        "folder for cifar.",
    )
    image_size: PositiveInt | None = Field(
        default=None, description="Side in pixels; larger images are resized and centre-cropped. Default: as stored."
    )
    resize: PositiveInt | None = Field(
        default=None,
        description="Side in pixels that the shorter side of every image is scaled to before the middle square of "
        "image_size is cut out. Training images too, but for those of random_resized_crop. Default: image_size.",
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
    def shorter_side(self) -> int | None:
        """Pixels that the shorter side of every image is scaled to; None if images stay as they are."""
        return self.resize or self.image_size

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.source == "imagefolder" and self.path is None:
            raise ValueError("source 'imagefolder' needs path, the folder that holds train/ and test/")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std are given together or not at all")
        if self.resize is not None:
            self._check_resize(self.resize)
        if self.loading == "files":
            self._check_files()
        elif self.random_resized_crop is not None:
            raise ValueError("random_resized_crop needs loading 'files': with 'cache' all images have one size already")
        return self

    def _check_resize(self, resize: int) -> None:
        if self.image_size is None:
            raise ValueError(f"resize {resize} needs image_size, the side of the square that is then cut out")
        if resize < self.image_size:
            raise ValueError(
                f"resize {resize} is below image_size {self.image_size}: the square that is cut out would not fit"
            )

    def _check_files(self) -> None:
        if self.source != "imagefolder":
            raise ValueError(f"loading 'files' needs source 'imagefolder'; for '{self.source}' it is 'cache'")
        if self.image_size is None:
            raise ValueError("loading 'files' needs image_size, the side that all images are brought to")
        if self.random_resized_crop is None:
            return
        least, largest = self.random_resized_crop
        if not least <= largest <= 1:
            raise ValueError(f"random_resized_crop [{least}, {largest}] must rise and end at 1 or below")
        if self.crop_padding:
            raise ValueError("crop_padding and random_resized_crop both crop at random: set one of them")
