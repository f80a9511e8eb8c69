"""Names of the files of a run directory, the step that makes each, and what that step makes it from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ecd_deploy.training.names import CHECKPOINTS_FOLDER as CHECKPOINTS_FOLDER
from ecd_deploy.training.names import METRICS_NAME as METRICS_NAME
from ecd_deploy.training.names import TENSORBOARD_FOLDER as TENSORBOARD_FOLDER
from ecd_deploy.training.names import TRACKERS_NAME as TRACKERS_NAME

RECIPE_NAME: Final = "recipe.toml"
ENVIRONMENT_NAME: Final = "environment.json"
START_NAME: Final = "start.json"
TRAINING_NAME: Final = "training.json"
SPLIT_NAME: Final = "split.json"
WEIGHTS_NAME: Final = "split.safetensors"
EXPORTS_FOLDER: Final = "exports"
ARTEFACTS_NAME: Final = "artefacts.json"
AUDIT_NAME: Final = "audit.json"
VALIDATION_NAME: Final = "validation.json"
PREDICTIONS_NAME: Final = "predictions.safetensors"
PROFILE_NAME: Final = "profile.json"
PROFILES_FOLDER: Final = "profiles"
GATE_NAME: Final = "gate.json"
JUNIT_NAME: Final = "junit.xml"
HTML_NAME: Final = "report.html"
MARKDOWN_NAME: Final = "report.md"
CARD_NAME: Final = "MODEL_CARD.md"
BOM_NAME: Final = "bom.cdx.json"
MANIFEST_NAME: Final = "MANIFEST.json"
LOCK_NAME: Final = ".lock"
SIGNATURE_NAME: Final = "MANIFEST.sig"
ARM_NAME: Final = "arm.json"


@dataclass(frozen=True)
class Origin:
    """The step that makes a file, and the files it makes it from, of which each may itself be made from others."""

    step: str
    made_from: tuple[str, ...] = ()


_STUDENT = (RECIPE_NAME, SPLIT_NAME, WEIGHTS_NAME)

ORIGINS: Final[Mapping[str, Origin]] = {
    ENVIRONMENT_NAME: Origin("train"),
    START_NAME: Origin("train", (RECIPE_NAME,)),
    TRAINING_NAME: Origin("train", (RECIPE_NAME, START_NAME)),
    SPLIT_NAME: Origin("split", (RECIPE_NAME, TRAINING_NAME)),
    WEIGHTS_NAME: Origin("split", (RECIPE_NAME, TRAINING_NAME)),
    AUDIT_NAME: Origin("export", _STUDENT),
    ARTEFACTS_NAME: Origin("export", (*_STUDENT, AUDIT_NAME)),
    PREDICTIONS_NAME: Origin("validate", (*_STUDENT, ARTEFACTS_NAME)),
    VALIDATION_NAME: Origin("validate", (*_STUDENT, ARTEFACTS_NAME, PREDICTIONS_NAME)),
    PROFILE_NAME: Origin("profile", (RECIPE_NAME, ARTEFACTS_NAME)),
    GATE_NAME: Origin(
        "gate",
        (RECIPE_NAME, SPLIT_NAME, ARTEFACTS_NAME, AUDIT_NAME, PREDICTIONS_NAME, VALIDATION_NAME, PROFILE_NAME),
    ),
    ARM_NAME: Origin("compare", (RECIPE_NAME, TRAINING_NAME)),
}
"""Of what other steps read. A file whose sources were made anew after it is stale, and so is all that follows it."""
