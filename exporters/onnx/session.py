"""ONNX and .ort files run by onnxruntime on the CPU."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.files.metadata import INPUT_NAME, OUTPUT_NAME, ArtefactMetadata
from ecd_deploy.exporters.preprocessing import to_pixels
from ecd_deploy.measure.predictors.prediction import Predictor

_ERRORS_ONLY = 3


def session_options(threads: int) -> ort.SessionOptions:
    """Options with both thread counts set: onnxruntime's defaults fail under some cpusets."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    return options


def open_session(data: bytes, threads: int, format_name: str) -> ort.InferenceSession:
    """Start onnxruntime on an artefact's bytes.

    Raises:
        ExportError: onnxruntime cannot read or prepare them.
    """
    try:
        return ort.InferenceSession(data, session_options(threads), providers=["CPUExecutionProvider"])
    except Exception as error:
        reraise_machine_fault(error)
        raise ExportError(f"onnxruntime cannot open the {format_name} artefact: {error}") from error


def session_predictor(session: ort.InferenceSession, metadata: ArtefactMetadata) -> Predictor:
    """A predictor of normalised images: made into pixels where the file wants those, one by one where it must."""

    def run(images: NDArray[np.float32] | NDArray[np.uint8]) -> NDArray[np.float32]:
        (logits,) = session.run([OUTPUT_NAME], {INPUT_NAME: images})
        result: NDArray[np.float32] = logits
        return result

    def predict(images: NDArray[np.float32]) -> NDArray[np.float32]:
        given = to_pixels(images, metadata) if metadata.preprocessing != "outside" else images
        size = metadata.batch
        if size is None:
            return run(given)
        return np.concatenate([run(given[start : start + size]) for start in range(0, len(given), size)])

    return predict
