"""Names of the files of a run directory, each in this place alone."""

from __future__ import annotations

from typing import Final

from ecd_deploy.training.names import CHECKPOINTS_FOLDER as CHECKPOINTS_FOLDER
from ecd_deploy.training.names import METRICS_NAME as METRICS_NAME
from ecd_deploy.training.names import TENSORBOARD_FOLDER as TENSORBOARD_FOLDER

RECIPE_NAME: Final = "recipe.toml"
ENVIRONMENT_NAME: Final = "environment.json"
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
