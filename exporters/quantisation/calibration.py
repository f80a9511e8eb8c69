"""What formats in INT8 share: the images that they are calibrated on, and what they say of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from ecd_deploy.data import ImageSet, balanced_subset
from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.context import ExportContext
from ecd_deploy.exporters.files.metadata import Quantisation
from ecd_deploy.exporters.quantisation.accuracy_control import Controlled, Model
from ecd_deploy.files import sha256_bytes
from ecd_deploy.recipe.export import Int8Config


@dataclass(frozen=True)
class Calibration:
    """Training images, balanced over the classes, and how much accuracy may go.

    Attributes:
        images: as uint8 pixels.
        indices: of these among the training images.
        max_drop: of top-1 on the validation images, a fraction.
    """

    context: ExportContext
    config: Int8Config
    images: ImageSet
    indices: tuple[int, ...]
    max_drop: float

    def describe(
        self,
        controlled: Controlled[Model],
        *,
        target: Literal["x86", "arm"] | None,
        quant_format: Literal["qoperator", "qdq", "litert"],
        method: Literal["minmax", "entropy", "percentile"],
        reduce_range: bool,
    ) -> Quantisation:
        """What an artefact says about its quantisation; the arguments are those of `Quantisation`."""
        validation = self.context.validation
        return Quantisation(
            target=target,
            quant_format=quant_format,
            method=method,
            activation_type="uint8" if target == "x86" else "int8",
            per_channel=self.config.per_channel,
            reduce_range=reduce_range,
            calibration_images=len(self.indices),
            calibration_indices_sha256=sha256_bytes(json.dumps(self.indices).encode()),
            calibration_pixels_sha256=sha256_bytes(self.images.images.tobytes()),
            validation_images=0 if validation is None else len(validation),
            float_top1=controlled.float_top1,
            full_int8_top1=controlled.full_int8_top1,
            top1=controlled.top1,
            max_drop=None if validation is None else self.max_drop,
            float_nodes=controlled.float_nodes,
        )


def choose_calibration(context: ExportContext | None, config: Int8Config, format_name: str) -> Calibration:
    """Draw the images.

    Raises:
        ExportError: there are none to draw from.
    """
    if context is None:
        raise ExportError(f"{format_name} is calibrated on training images, and none were given")
    indices = balanced_subset(context.train.labels, config.count, seed=context.seed)
    max_drop = context.max_drop if config.max_drop is None else config.max_drop
    return Calibration(context, config, context.train.select(indices), tuple(indices.tolist()), max_drop)
