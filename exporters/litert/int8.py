"""LiteRT in INT8: quantised statically by ai-edge-quantizer, its accuracy watched as that of ONNX in INT8 is.

Weights and activations are signed; images and logits stay float32. Ranges are the least and the largest of what the
calibration images give: the quantiser has no other method.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecd_deploy.data import ImageSet
from ecd_deploy.exporters.budget import INT8_BUDGET
from ecd_deploy.exporters.checks import checked
from ecd_deploy.exporters.contract import ExportInput
from ecd_deploy.exporters.litert.converter import calibrated, stamp
from ecd_deploy.exporters.litert.exporter import LiteRtExporter, LiteRtFormat, litert_predictor
from ecd_deploy.exporters.quantisation.accuracy_control import Controlled, quantise_within
from ecd_deploy.exporters.quantisation.calibration import Calibration, choose_calibration
from ecd_deploy.exporters.source_file import source_file
from ecd_deploy.measure.predictors.prediction import predict
from ecd_deploy.recipe.export import Int8Config


class Int8LiteRtExporter(LiteRtFormat):
    """Writes the LiteRT student with integer operators.

    Args:
        config: number of calibration images, scales by channel, largest loss.
    """

    format = "litert-int8"
    filename = "student.int8.tflite"
    budget = INT8_BUDGET
    derived_from = "litert"

    def __init__(self, config: Int8Config | None = None) -> None:
        self._config = config or Int8Config()

    def export(self, given: ExportInput) -> bytes:
        """Write the student; see `Exporter`."""
        source = source_file(given, self.format, self.derived_from, LiteRtExporter().read_metadata)
        calibration = choose_calibration(given.context, self._config, self.format)
        controlled = _quantised(source.data, calibration)
        record = calibration.describe(
            controlled, target=None, quant_format="litert", method="minmax", reduce_range=False
        )
        described = source.metadata.model_copy(update={"quantisation": record})
        data = stamp(controlled.model, described)
        return checked(data, lambda written: litert_predictor(written, 1), described, self.format)


def _quantised(source: bytes, calibration: Calibration) -> Controlled[bytes]:
    context = calibration.context
    shown = context.normalisation.apply(calibration.images.images)

    def logits(model: bytes, images: ImageSet) -> NDArray[np.float32]:
        return predict(litert_predictor(model, 1), context.normalisation.batches(images, 1)).logits

    with calibrated(source, shown, per_channel=calibration.config.per_channel) as quantiser:
        return quantise_within(quantiser, source, logits, context.validation, calibration.max_drop)
