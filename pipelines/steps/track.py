"""After the gate: hand the verdict, what was measured and the artefacts to the trackers of the training."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec

from ecd_deploy.pipelines.record.artefacts import read_artefacts
from ecd_deploy.pipelines.record.names import (
    CARD_NAME,
    GATE_NAME,
    HTML_NAME,
    RECIPE_NAME,
    TRACKERS_NAME,
    VALIDATION_NAME,
)
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.pipelines.record.validation import Validation

_REPORTS = (RECIPE_NAME, GATE_NAME, HTML_NAME, CARD_NAME)

_logger = logging.getLogger(__name__)


def track(directory: RunDirectory, verdict: str, checks: Mapping[str, float]) -> None:
    """Hand over how a run ended, if a server followed its training; `checks` are the values that limits are of."""
    if TRACKERS_NAME not in directory.manifest.files:
        return
    if find_spec("accelerate") is None:
        _logger.warning("the trackers do not learn of the verdict, which needs pip install 'ecd-deploy[train]'")
        return
    from ecd_deploy.training.trackers import conclude

    artefacts = read_artefacts(directory).artefacts
    values = {f"gate {name}": value for name, value in checks.items()}
    values["test_top1"] = directory.read_json(VALIDATION_NAME, Validation).onnx_top1.candidate.accuracy
    values |= {f"bytes {artefact.format}": float(artefact.bytes) for artefact in artefacts}
    names = [name for name in _REPORTS if name in directory.manifest.files]
    files = {name: directory.root / name for name in (*names, *(artefact.file for artefact in artefacts))}
    conclude(directory.recipe, directory.root, verdict, values, files)
