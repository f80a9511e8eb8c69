"""What every format is checked for once it is written."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ecd_deploy.errors import ExportError, reraise_machine_fault
from ecd_deploy.exporters.files.metadata import ArtefactMetadata
from ecd_deploy.exporters.files.paths import refuse_local_paths
from ecd_deploy.measure.predictors.prediction import Predictor

_BATCHES = (1, 3)


def checked(data: bytes, opened: Callable[[bytes], Predictor], metadata: ArtefactMetadata, format_name: str) -> bytes:
    """Return an artefact's bytes, if they hold no local path and run on batches of one and of several images.

    The images are blank: a batch size frozen into the artefact shows here.

    Args:
        data: the artefact.
        opened: what makes it ready to run.
        metadata: that it carries.
        format_name: for errors.

    Raises:
        ExportError: they hold one, a batch does not run, or it gives logits of another shape.
    """
    refuse_local_paths(data, format_name)
    predictor = opened(data)
    for size in _BATCHES:
        expected = (size, len(metadata.classes))
        try:
            logits = predictor(np.zeros((size, *metadata.input_shape), dtype=np.float32))
        except Exception as error:
            reraise_machine_fault(error)
            raise ExportError(f"the {format_name} artefact does not run on a batch of {size}: {error}") from error
        if logits.shape != expected:
            raise ExportError(f"the {format_name} artefact gives logits {logits.shape}, expected {expected}")
    return data
