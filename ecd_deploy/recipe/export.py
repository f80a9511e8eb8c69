"""The recipe's `[export]`: which formats are written, and how."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from ecd_deploy.recipe.section import Fraction, PositiveInt, Section

ENTRY_POINT_GROUP = "ecd_deploy.exporters"
"""Where other packages announce formats: a name, and a callable that takes the `ExportConfig`."""

BUILTIN_FORMATS = (
    "safetensors",
    "torchscript",
    "onnx",
    "onnx-static",
    "onnx-int8",
    "onnx-fp16",
    "ort",
    "pt2",
    "openvino",
    "executorch",
    "litert",
    "litert-int8",
    "ncnn",
    "coreml",
)
EXTRA_FORMATS: Mapping[str, str] = {
    "openvino": "openvino",
    "executorch": "executorch",
    "litert": "ai_edge_litert",
    "litert-int8": "ai_edge_litert",
    "ncnn": "ncnn",
    "coreml": "coremltools",
}
"""Those that need an extra, named as the format is up to its first hyphen, and a package that is there with it."""

UNVERIFIED_FORMATS = ("coreml",)
"""Those whose runtime runs on no system that this package does."""

_FIXED_SIZE_FORMATS = ("onnx-static", "openvino")


def format_names() -> tuple[str, ...]:
    """The formats of this package, then those of installed plug-ins; nothing of a plug-in is imported."""
    found = {entry.name for entry in entry_points(group=ENTRY_POINT_GROUP)}
    return (*BUILTIN_FORMATS, *sorted(found.difference(BUILTIN_FORMATS)))


class Int8Config(Section):
    """How the student is quantised: statically, calibrated on training images."""

    target: Literal["x86", "arm"] = Field(
        default="x86", description="x86 multiplies unsigned activations by signed weights (U8S8), arm signed by signed."
    )
    vnni: bool = Field(
        default=True,
        description="Whether an x86 target has VNNI; without it weights take 7 bits, or products would saturate.",
    )
    quant_format: Literal["qoperator", "qdq"] = Field(
        default="qoperator", description="Integer operators (smaller), or float ones between Quantize/Dequantize pairs."
    )
    method: Literal["minmax", "entropy", "percentile"] = Field(
        default="minmax", description="How the range of an activation is found on the calibration images."
    )
    percentile: Annotated[float, Field(gt=50, le=100)] = Field(
        default=99.99, description="Share of the activations, in percent, that method 'percentile' keeps in range."
    )
    per_channel: bool = Field(default=True, description="One scale for each output channel of a weight.")
    count: PositiveInt = Field(default=200, description="Training images to calibrate on, balanced over the classes.")
    max_drop: Fraction | None = Field(
        default=None,
        description="Largest top-1 loss on the validation split; beyond it the layers that hurt most go back to "
        "float. Default: gate.max_drop, or 0.01 where that is not set. Without a validation split nothing goes back, "
        "and the test images decide (gate.max_drop).",
    )

    @property
    def reduce_range(self) -> bool:
        """Whether weights take 7 bits."""
        return self.target == "x86" and not self.vnni


class ExportConfig(Section):
    """What is written for the device."""

    formats: tuple[str, ...] = Field(
        default=("safetensors", "torchscript", "onnx"),
        min_length=1,
        description=f"Of {', '.join(BUILTIN_FORMATS)}, or of an installed plug-in.",
    )
    opset: Annotated[int, Field(ge=18, le=24)] = Field(
        default=20, description="ONNX opset; asserted from the written file. The exporter has none below 18."
    )
    preprocessing: Literal["outside", "inside", "full"] = Field(
        default="outside",
        description="inside: the ONNX formats take uint8 images (N, H, W, C) of the input's size and normalise them "
        "themselves. full: of any size; they also scale them, cut the middle out and give `probabilities` beside the "
        "logits. For full, data.image_size must be set.",
    )
    int8: Int8Config = Int8Config()

    @field_validator("formats")
    @classmethod
    def _known(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        others = [name for name in formats if name not in BUILTIN_FORMATS]
        if not others:
            return formats  # without a look into every installed package
        choices = format_names()
        unknown = [name for name in others if name not in choices]
        if unknown:
            raise ValueError(f"no format '{unknown[0]}'; there are {', '.join(choices)}")
        return formats

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.formats)) != len(self.formats):
            raise ValueError(f"formats {list(self.formats)} names a format twice")
        fixed = [name for name in self.formats if name in _FIXED_SIZE_FORMATS]
        if self.preprocessing == "full" and fixed:
            raise ValueError(f"preprocessing = 'full' takes images of any size, and {fixed[0]} of one size alone")
        if "onnx" not in self.formats:
            raise ValueError("formats must contain 'onnx': accuracy and latency are measured on it")
        return self
