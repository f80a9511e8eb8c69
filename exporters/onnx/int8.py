"""ONNX in INT8: quantised statically, calibrated on training images, its accuracy watched on validation images.

Without validation images everything is quantised and nothing watched; what that costs is measured on the test images.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from ecd_deploy.data import ImageSet
from ecd_deploy.exporters.budget import INT8_BUDGET
from ecd_deploy.exporters.contract import ExportInput
from ecd_deploy.exporters.files.metadata import ArtefactMetadata
from ecd_deploy.exporters.onnx.format import OnnxFormat, finish, fp32_source, parse_model
from ecd_deploy.exporters.onnx.graph import strip_provenance
from ecd_deploy.exporters.onnx.quantisation import calibrated
from ecd_deploy.exporters.onnx.session import open_session, session_predictor
from ecd_deploy.exporters.preprocessing import to_pixels
from ecd_deploy.exporters.quantisation.accuracy_control import Controlled, quantise_within
from ecd_deploy.exporters.quantisation.calibration import Calibration, choose_calibration
from ecd_deploy.measure.predictors.prediction import predict
from ecd_deploy.recipe.export import Int8Config
from ecd_deploy.system import usable_cpus

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
        source = fp32_source(given, self.format)
        calibration = choose_calibration(given.context, self._config, self.format)
        controlled = self._quantised(parse_model(source.data, self.format), source.metadata, calibration)
        config = self._config
        record = calibration.describe(
            controlled,
            target=config.target,
            quant_format=config.quant_format,
            method=config.method,
            reduce_range=config.reduce_range,
        )
        described = source.metadata.model_copy(update={"quantisation": record})
        strip_provenance(controlled.model)
        return finish(controlled.model, described, self.format)

    def _quantised(
        self, model: onnx.ModelProto, metadata: ArtefactMetadata, calibration: Calibration
    ) -> Controlled[onnx.ModelProto]:
        context = calibration.context
        inside = metadata.preprocessing != "outside"
        shown = context.normalisation.apply(calibration.images.images)
        given = to_pixels(shown, metadata) if inside else shown

        def logits(candidate: onnx.ModelProto, images: ImageSet) -> NDArray[np.float32]:
            session = open_session(candidate.SerializeToString(), 1, self.format)
            predictor = session_predictor(session, metadata)
            batches = context.normalisation.batches(images, _BATCH)
            return predict(predictor, batches, at_once=len(usable_cpus())).logits

        with calibrated(model, given, self._config) as quantiser:
            return quantise_within(quantiser, model, logits, context.validation, calibration.max_drop)
