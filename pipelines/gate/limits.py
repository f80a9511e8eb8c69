"""The limits that a gate decides by: the recipe's, or those of a file in their place."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ecd_deploy.documents import parse_toml, read_text
from ecd_deploy.errors import RecipeError
from ecd_deploy.files import sha256_file
from ecd_deploy.pipelines.record.names import RECIPE_NAME
from ecd_deploy.pipelines.record.run_directory import RunDirectory
from ecd_deploy.recipe.gate import GateConfig
from ecd_deploy.records import Record

NO_ACCURACY_LIMIT: Final = (
    "This gate decides nothing about accuracy: no limit on it is set, such as min_top1, max_drop or max_baseline_drop."
)


class LimitsSource(Record):
    """Where limits come from."""

    file: str
    """`recipe.toml` of the run, or the name of the file that was given."""
    sha256: str
    replaces_recipe: bool

    def words(self) -> str:
        """As a sentence."""
        place = " of the run" if self.file == RECIPE_NAME else ""
        if self.replaces_recipe:
            place = ", in place of the recipe's"
        return f"Limits: {self.file}{place} (SHA-256 {self.sha256})."


@dataclass(frozen=True)
class Limits:
    """Limits, and where they come from."""

    config: GateConfig
    source: LimitsSource


class _Headed(Record):
    """A file of limits with a header, as a recipe has it."""

    gate: GateConfig


def limits_of(directory: RunDirectory) -> Limits:
    """The limits of a run's recipe."""
    digest = directory.manifest.entry(RECIPE_NAME).sha256
    return Limits(directory.recipe.gate, LimitsSource(file=RECIPE_NAME, sha256=digest, replaces_recipe=False))


def read_limits(path: Path) -> Limits:
    """Read limits from a TOML file with the keys of the recipe's `[gate]`, below that header or without one.

    What the file does not name has its default, whatever the recipe says.

    Raises:
        RecipeError: it cannot be read, or names the key that cannot be used.
    """
    text = read_text(path, "limits", RecipeError)
    document = parse_toml(text, str(path), RecipeError)
    complaint = f"{path} cannot be used"
    if any(isinstance(value, dict) and key not in GateConfig.model_fields for key, value in document.items()):
        config = _Headed.from_document(document, complaint, RecipeError).gate
    else:
        config = GateConfig.from_document(document, complaint, RecipeError)
    name = os.fsencode(path.name).decode("utf-8", "backslashreplace")
    return Limits(config, LimitsSource(file=name, sha256=sha256_file(path), replaces_recipe=True))
