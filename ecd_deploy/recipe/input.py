"""What a classifier that was not made here expects, and the file that says so: `[input]`, `[gate]` and `[profile]`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ecd_deploy.documents import parse_toml, read_text
from ecd_deploy.errors import RecipeError
from ecd_deploy.recipe.gate import GateConfig
from ecd_deploy.recipe.profile import ProfileConfig
from ecd_deploy.recipe.recipe import apply_override
from ecd_deploy.recipe.section import PositiveFloat, PositiveInt, Section
from ecd_deploy.recipe.sides import Sides, check_resize

Channels = Annotated[tuple[float, ...], Field(min_length=1, max_length=3)]


class InputConfig(Section):
    """How an image becomes the input of a model, and what its outputs mean, where the file itself does not say it.

    In this order: resized, its channels put in order, `pixel / 255 * scale`, minus `mean`, divided by `std`.
    """

    size: tuple[PositiveInt, PositiveInt] | None = Field(
        default=None, description="Height and width in pixels. Default: as the file says; needed where they are free."
    )
    resize: Sides | Literal["stretch"] | None = Field(
        default=None,
        description="Pixels that the shorter side of an image is scaled to, or [height, width] that it is scaled to "
        "fill (bilinear, antialiased), before the middle of size is cut out; 'stretch' scales both sides to size. "
        "Default: images have that size.",
    )
    mean: Channels | None = Field(
        default=None, description="Subtracted from each channel, in units of scale and in the order of channels."
    )
    std: tuple[PositiveFloat, ...] | None = Field(default=None, description="Each channel is divided by it after that.")
    scale: PositiveFloat = Field(
        default=1.0, description="What a white pixel, 255, is before mean and std: 1 for 0..1, 255 for 0..255."
    )
    channels: Literal["rgb", "bgr"] = Field(
        default="rgb", description="Order of the colours; without effect where the model takes one channel, grey."
    )
    layout: Literal["nchw", "nhwc"] | None = Field(
        default=None, description="Default: told by which side of the input has 1 or 3 channels."
    )
    dtype: Literal["float32", "float16", "uint8"] | None = Field(
        default=None, description="Default: as the file says, and it must be that; uint8 takes pixels as they are."
    )
    classes: str | None = Field(
        default=None,
        description="File with the name of one class a line, in the order of the outputs; relative to this file. "
        "Default: the images' classes in the order of their names, if they are as many as the outputs.",
    )
    output: str | None = Field(default=None, description="Name of the output. Default: the only one.")
    scores: Literal["logits", "probabilities"] | None = Field(
        default=None,
        description="What the output holds. Default: probabilities where no value is negative and those of every "
        "image sum to 1, else logits.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std are given together or not at all")
        if self.mean is not None and self.std is not None and len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means and {len(self.std)} deviations")
        if isinstance(self.resize, int | tuple) and self.size is not None:
            check_resize(self.resize, "size", self.size)
        return self


class ModelConfig(Section):
    """The file of `--config` for a model: limits, how latency is measured, and what the model expects."""

    gate: GateConfig = GateConfig()
    profile: ProfileConfig = ProfileConfig()
    input: InputConfig = InputConfig()


def read_model_config(path: Path | None, overrides: tuple[str, ...] = ()) -> ModelConfig:
    """Read the file, if there is one, and apply overrides, `key.path=value` each.

    A file without a header holds limits, as it may for a run.

    Raises:
        RecipeError: it cannot be read, or names the key that cannot be used.
    """
    where = "the options" if path is None else str(path)
    document = {} if path is None else parse_toml(read_text(path, "configuration", RecipeError), where, RecipeError)
    headed = any(isinstance(value, dict) and key not in GateConfig.model_fields for key, value in document.items())
    if document and not headed:
        document = {"gate": document}
    for override in overrides:
        apply_override(document, override)
    config = ModelConfig.from_document(document, f"{where} cannot be used", RecipeError)
    if path is None or config.input.classes is None or any(given.startswith("input.classes=") for given in overrides):
        return config
    classes = str(path.parent / config.input.classes)
    return config.model_copy(update={"input": config.input.model_copy(update={"classes": classes})})
