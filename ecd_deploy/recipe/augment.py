"""The recipe's `[augment]`: what training images go through besides the crop and mirror of `[data]`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ecd_deploy.recipe.section import Fraction, PositiveFloat, PositiveInt, Section

_LARGEST_MAGNITUDE = 30
_OF_RANDAUGMENT = ("operations", "magnitude")


class AugmentConfig(Section):
    """Random changes of training images, in this order; every draw is a function of seed, epoch and image."""

    rotation: Annotated[float, Field(ge=0, le=180)] = Field(
        default=0.0, description="Largest angle, in degrees either way, that each training image is turned by."
    )
    policy: Literal["none", "randaugment", "trivialaugment"] = Field(
        default="none", description="RandAugment, or TrivialAugment (wide), with torchvision's operations and ranges."
    )
    operations: PositiveInt = Field(default=2, description="Of randaugment: operations an image goes through.")
    magnitude: Annotated[int, Field(ge=0)] = Field(
        default=9, description="Of randaugment: strength of its operations, 0 to 30."
    )
    brightness: Fraction = Field(
        default=0.0, description="Colour jitter: the factor is drawn from 1 - brightness to 1 + brightness."
    )
    contrast: Fraction = Field(default=0.0, description="Likewise; the four of colour jitter come in random order.")
    saturation: Fraction = Field(default=0.0, description="Likewise, of colour images.")
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(
        default=0.0, description="Largest shift of the hue of colour images, either way, in turns of the colour circle."
    )
    transforms: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(),
        description="Your own, each as `package.module:factory`: factory() gives what is called on one image, uint8 "
        "(C, H, W), and returns one of that shape; what it draws from torch, numpy or random repeats on resume.",
    )
    random_erasing: Fraction = Field(
        default=0.0, description="Probability that a random rectangle of an image is set to the mean colour."
    )
    mixup: PositiveFloat | None = Field(
        default=None,
        description="Blend each image and its label with another of its step; the share is drawn from "
        "Beta(mixup, mixup), as in the paper often 0.2.",
    )
    cutmix: PositiveFloat | None = Field(
        default=None,
        description="Replace a random rectangle of each image by that of another of its step, and the label by its "
        "area; drawn from Beta(cutmix, cutmix), as in the paper 1.0. With mixup, each image gets either of them.",
    )

    @property
    def mixes_labels(self) -> bool:
        """Whether labels become shares of two classes."""
        return self.mixup is not None or self.cutmix is not None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.magnitude > _LARGEST_MAGNITUDE:
            raise ValueError(f"magnitude {self.magnitude} is too large: it goes from 0 to {_LARGEST_MAGNITUDE}")
        if self.policy != "randaugment":
            for key in _OF_RANDAUGMENT:
                value = getattr(self, key)
                if value != type(self).model_fields[key].default:
                    raise ValueError(f"{key} {value} has no effect: it is of policy 'randaugment', not '{self.policy}'")
        return self
