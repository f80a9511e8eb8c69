"""ONNX in INT8: quantised statically, calibrated on training images, its accuracy watched on validation images.

Without validation images everything is quantised and nothing watched; what that costs is measured on the test images.
"""

from __future__ import annotations

import json

import numpy as np
import onnx
from numpy.typing import NDArray

from ecd_deploy.data import ImageSet, balanced_subset
from ecd_deploy.errors import ExportError
from ecd_deploy.exporters.budget import INT8_BUDGET
from ecd_deploy.exporters.context import ExportContext
from ecd_deploy.exporters.contract import ExportInput
from ecd_deploy.exporters.metadata import ArtefactMetadata, Quantisation
from ecd_deploy.exporters.onnx.accuracy_control import Controlled, quantise_within
from ecd_deploy.exporters.onnx.format import OnnxFormat, finish, fp32_source, parse_model
from ecd_deploy.exporters.onnx.graph import strip_provenance
from ecd_deploy.exporters.onnx.quantisation import calibrated
from ecd_deploy.exporters.onnx.session import open_session, session_predictor
from ecd_deploy.exporters.preprocessing import to_pixels
from ecd_deploy.files import sha256_bytes
from ecd_deploy.measure.prediction import predict
from ecd_deploy.recipe.export import Int8Config

_BATCH = 128


class Int8OnnxExporter(OnnxFormat):
    """Writes the ONNX student with integer convolutions.

    Args:
        config: target, method, number of calibration images.
    """

    format = "onnx-int8"
    filename = "student.int8.onnx"
    budget = INT8_BUDGET

    def __init__(self, config: Int8Config | None = None) -> None:
        self._config = config or Int8Config()

    def export(self, given: ExportInput) -> bytes:
        """Write the student; see `Exporter`."""
        source, context = fp32_source(given, self.format), given.context
        if context is None:
            raise ExportError(f"{self.format} is calibrated on training images, and none were given")
        indices = balanced_subset(context.train.labels, self._config.count, seed=context.seed)
        chosen = context.train.select(indices)
        controlled = self._quantised(parse_model(source.data, self.format), source.metadata, context, chosen)
        record = self._record(controlled, context, indices.tolist(), chosen)
        described = source.metadata.model_copy(update={"quantisation": record})
        strip_provenance(controlled.model)
        return finish(controlled.model, described, self.format)

    def _quantised(
        self, model: onnx.ModelProto, metadata: ArtefactMetadata, context: ExportContext, chosen: ImageSet
    ) -> Controlled:
        inside = metadata.preprocessing != "outside"
        shown = context.normalisation.apply(chosen.images)
        given = to_pixels(shown, metadata) if inside else shown
        validation = context.validation
        if validation is None:
            with calibrated(model, given, self._config) as quantiser:
                return Controlled(quantiser.quantise(quantiser.nodes))

        def logits(candidate: onnx.ModelProto, limit: int | None) -> NDArray[np.float32]:
            images = validation if limit is None else validation.first(limit)
            session = open_session(candidate.SerializeToString(), 1, self.format)
            predictor = session_predictor(session, metadata)
            return predict(predictor, context.normalisation.batches(images, _BATCH)).logits

        with calibrated(model, given, self._config) as quantiser:
            return quantise_within(quantiser, model, logits, validation.labels, self._margin(context))

    def _margin(self, context: ExportContext) -> float:
        return context.max_drop if self._config.max_drop is None else self._config.max_drop

    def _record(
        self, controlled: Controlled, context: ExportContext, indices: list[int], chosen: ImageSet
    ) -> Quantisation:
        config = self._config
        return Quantisation(
            target=config.target,
            quant_format=config.quant_format,
            method=config.method,
            activation_type="uint8" if config.target == "x86" else "int8",
            per_channel=config.per_channel,
            reduce_range=config.reduce_range,
            calibration_images=len(indices),
            calibration_indices_sha256=sha256_bytes(json.dumps(indices).encode()),
            calibration_pixels_sha256=sha256_bytes(chosen.images.tobytes()),
            validation_images=0 if context.validation is None else len(context.validation),
            float_top1=controlled.float_top1,
            full_int8_top1=controlled.full_int8_top1,
            top1=controlled.top1,
            max_drop=None if context.validation is None else self._margin(context),
            float_nodes=controlled.float_nodes,
        )
