"""What every artefact says about itself, and the check that it says so of the right student."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from ecd_deploy.errors import ExportError
from ecd_deploy.recipe.sides import Sides, scaling_words
from ecd_deploy.records import Record

if TYPE_CHECKING:
    from ecd_deploy.split import SplitStudent

METADATA_KEY = "ecd_deploy"
"""Under which an artefact holds its metadata, as one JSON text: several keys would come in any order."""

INPUT_NAME: Final = "images"
OUTPUT_NAME: Final = "logits"
PROBABILITIES_NAME: Final = "probabilities"

_Size = Annotated[int, Field(ge=1)]


class Quantisation(Record, strict=True, allow_inf_nan=False):
    """How an artefact was quantised, on which images, and what that cost."""

    target: Literal["x86", "arm"] | None = Field(description="The processors it was made for; None where for all.")
    quant_format: Literal["qoperator", "qdq", "litert"]
    method: Literal["minmax", "entropy", "percentile"]
    activation_type: Literal["uint8", "int8"]
    weight_type: Literal["int8"] = "int8"
    per_channel: bool
    reduce_range: bool
    calibration_images: int
    calibration_indices_sha256: str = Field(description="Of the indices in the training split, as a JSON list.")
    calibration_pixels_sha256: str = Field(description="Of the uint8 images themselves, in that order.")
    validation_images: int = Field(description="0: the run had no validation split, and nothing was watched.")
    float_top1: float | None = Field(
        description="Of the fp32 model on the validation split, a fraction; this and what follows is None without one."
    )
    full_int8_top1: float | None = Field(description="With every layer that can be quantised in INT8.")
    top1: float | None = Field(description="As written.")
    max_drop: float | None = Field(description="The margin that accuracy control kept.")
    float_nodes: tuple[str, ...] = Field(description="Nodes that went back to float, in the order they did.")


class ArtefactMetadata(Record, strict=True, allow_inf_nan=False):
    """What a device must know to use an artefact."""

    schema_version: Literal[1] = 1
    student: str = Field(description="Name of the architecture, as in the recipe.")
    classes: tuple[str, ...] = Field(min_length=2, description="Names of the logits, in order.")
    input_shape: tuple[_Size, _Size, _Size] = Field(description="Channels, height, width of one image, float32.")
    resize: Sides | None = Field(
        default=None,
        description="Pixels that the shorter side of an image is scaled to, or [height, width] that it is scaled to "
        "fill, bilinear and antialiased, before the middle of input_shape is cut out; only a file of full "
        "preprocessing does this itself. None: images have that shape as they are.",
    )
    mean: tuple[float, ...] = Field(description="Subtracted from each channel of an image in 0..1.")
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(description="Each channel is divided by it after that.")
    input_name: Literal["images"] = INPUT_NAME
    output_name: Literal["logits"] = OUTPUT_NAME
    batch: _Size | None = Field(default=None, description="The only batch size that runs; None for any.")
    preprocessing: Literal["outside", "inside", "full"] = Field(
        default="outside",
        description="inside: `images` are uint8 (N, H, W, C), and the file itself does what mean and std say, though "
        "not what resize says. full: they have any size, the file does what resize says too, and has a second output, "
        "`probabilities`.",
    )
    derived_from: str | None = Field(default=None, description="SHA-256 of the file it was made from.")
    quantisation: Quantisation | None = None
    target: str | None = Field(default=None, description="The processors it runs on, where not all.")
    recipe_digest: str = Field(description="SHA-256 of the recipe of the run.")
    student_digest: str | None = Field(
        default=None, description="SHA-256 of the student's tensors, of the split proof; written by the exporter."
    )
    package_version: str = Field(default_factory=lambda: version("ecd-deploy"))

    @model_validator(mode="after")
    def _check(self) -> Self:
        channels = self.input_shape[0]
        if len(self.mean) != channels or len(self.std) != channels:
            raise ValueError(f"{len(self.mean)} means and {len(self.std)} deviations for {channels} channels")
        return self

    @property
    def framing(self) -> str:
        """How an image is brought to the input's size before anything else, in words."""
        _, height, width = self.input_shape
        if self.resize is None:
            return f"{height} x {width} pixels (height x width) as they are"
        return f"{scaling_words(self.resize)}, then the middle {height} x {width} cut out"


def describe(student: SplitStudent, metadata: ArtefactMetadata) -> ArtefactMetadata:
    """Check that the metadata fit the student, and add the student's digest.

    Raises:
        ExportError: image shape or number of classes differ, or the student is in train mode.
    """
    import torch

    training = [name or "the student" for name, child in student.module.named_modules() if child.training]
    if training:
        raise ExportError(f"cannot export: {training[0]} is in train mode")
    if metadata.input_shape != student.example_shape:
        raise ExportError(
            f"metadata give images of {metadata.input_shape}, the student was split on {student.example_shape}"
        )
    with torch.inference_mode():
        logits = student.module(torch.zeros(1, *student.example_shape))
    if logits.shape[1] != len(metadata.classes):
        raise ExportError(f"metadata name {len(metadata.classes)} classes, the student gives {logits.shape[1]} logits")
    return metadata.model_copy(update={"student_digest": student.proof.student_digest})


def parse_metadata(text: str | None, format_name: str) -> ArtefactMetadata:
    """Read the metadata of an artefact.

    Raises:
        ExportError: there are none, or they are malformed.
    """
    if text is None:
        raise ExportError(f"the {format_name} artefact has no metadata '{METADATA_KEY}'")
    return ArtefactMetadata.from_json(text, f"the {format_name} artefact's metadata are malformed", ExportError)
