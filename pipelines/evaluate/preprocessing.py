"""From a decoded image to the input of a model, by numpy and Pillow."""

from __future__ import annotations

import json
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from ecd_deploy.data.resize import Framing
from ecd_deploy.exporters.files.metadata import ArtefactMetadata
from ecd_deploy.files import sha256_bytes
from ecd_deploy.recipe.sides import Sides, scaling_words
from ecd_deploy.records import Record

_WHITE = 255


class Preprocessing(Record):
    """All that is done to an image; where its SHA-256 is the same, so is what the model was given.

    In this order: resized, channels put in order, `pixel / 255 * scale`, minus mean, divided by std.
    """

    height: int
    width: int
    resize: Sides | Literal["stretch"] | None
    """What an image is scaled to fill before its middle is cut out; None: an image must have height and width."""
    channels: Literal["rgb", "bgr", "grey"]
    scale: Annotated[float, Field(gt=0)]
    """What a white pixel is before mean and std."""
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    layout: Literal["nchw", "nhwc"]
    dtype: Literal["float32", "float16", "uint8"]
    """uint8: pixels as they are, without scale, mean and std."""
    framed_by_model: bool = False
    """Whether the model itself brings images of any size to height and width."""

    @classmethod
    def of_metadata(cls, metadata: ArtefactMetadata) -> Self:
        """What an artefact of this project says of itself."""
        channels, height, width = metadata.input_shape
        inside = metadata.preprocessing != "outside"
        return cls(
            height=height,
            width=width,
            resize=metadata.resize,
            channels="grey" if channels == 1 else "rgb",
            scale=1.0,
            mean=metadata.mean,
            std=metadata.std,
            layout="nhwc" if inside else "nchw",
            dtype="uint8" if inside else "float32",
            framed_by_model=metadata.preprocessing == "full",
        )

    @property
    def sha256(self) -> str:
        """Of all of it, as one JSON line with sorted keys."""
        return sha256_bytes(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode())

    @property
    def decoded_channels(self) -> int:
        """Channels that files are decoded to."""
        return 1 if self.channels == "grey" else 3

    def fit(self, image: Image.Image) -> Image.Image:
        """Bring an upright image to size; without `resize`, or where the model does so, it is left as it is."""
        if self.resize is None or self.framed_by_model:
            return image
        if self.resize == "stretch":
            size = (self.width, self.height)
            return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
        return Framing.of((self.height, self.width), self.resize).apply(image)

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32] | NDArray[np.float16] | NDArray[np.uint8]:
        """Turn pixels (N, C, H, W), RGB or grey, into what the model takes."""
        given = pixels[:, ::-1] if self.channels == "bgr" else pixels
        if self.layout == "nhwc":
            given = given.transpose(0, 2, 3, 1)
        if self.dtype == "uint8":
            return np.ascontiguousarray(given)
        shape = (1, 1, 1, -1) if self.layout == "nhwc" else (1, -1, 1, 1)
        mean, std = (np.array(values, dtype=np.float32).reshape(shape) for values in (self.mean, self.std))
        values = np.ascontiguousarray(given).astype(np.float32)
        values /= np.float32(_WHITE / self.scale)
        values -= mean
        values /= std
        return values.astype(np.float16) if self.dtype == "float16" else values

    @property
    def framing(self) -> str:
        """How an image is brought to the input's size before anything else, in words."""
        sized = f"{self.height} x {self.width} pixels (height x width)"
        if self.resize is None:
            return f"{sized} as they are"
        if self.resize == "stretch":
            return f"stretched to {sized}, bilinear and antialiased"
        by_whom = ", by the model itself" if self.framed_by_model else ""
        return f"{scaling_words(self.resize)}, then the middle {sized} cut out{by_whom}"

    def words(self) -> str:
        """All of it in a sentence."""
        if self.dtype == "uint8":
            values = "pixels of 0..255 as they are"
        else:
            values = f"pixels of 0..{self.scale:g}, minus mean {_listed(self.mean)}, divided by std {_listed(self.std)}"
        return f"{self.framing}; {self.channels}; {values}; {self.dtype} {self.layout}"


def _listed(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in values) + "]"
