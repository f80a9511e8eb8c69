"""The limits that a gate decides by: the recipe's, or those of a file in their place."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ecd_deploy.data.imagefolder.listing import printable
from ecd_deploy.documents import parse_toml, read_text
from ecd_deploy.errors import RecipeError, UsageError
from ecd_deploy.files import sha256_bytes, sha256_file
from ecd_deploy.pipelines.record.names import RECIPE_NAME
from ecd_deploy.pipelines.record.run_directory import RunDirectory, is_run, read_run
from ecd_deploy.recipe.gate import GateConfig
from ecd_deploy.recipe.input import InputConfig, read_model_config
from ecd_deploy.recipe.profile import ProfileConfig
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


@dataclass(frozen=True)
class ModelSettings:
    """What a gate of a model goes by.

    Attributes:
        limits: and where they come from.
        profile: how latency is measured.
        input: what models expect whose own metadata do not say so.
    """

    limits: Limits
    profile: ProfileConfig
    input: InputConfig


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
    return Limits(config, _source(path, replaces_recipe=True))


def _source(path: Path, *, replaces_recipe: bool) -> LimitsSource:
    name = printable(os.fsencode(path.name).decode("utf-8", "backslashreplace"))
    return LimitsSource(file=name, sha256=sha256_file(path), replaces_recipe=replaces_recipe)


def read_settings(
    target: Path, config_file: Path | None, overrides: tuple[str, ...] = (), *, has_baseline: bool
) -> ModelSettings:
    """Read limits and conditions: of the file, or for a run directory without one, of its recipe.

    Raises:
        UsageError: a model has neither limits nor a baseline.
        RecipeError: the file cannot be used.
    """
    config, of_run = read_model_config(config_file, overrides), is_run(target)
    if config_file is None and of_run:
        if ignored := [given for given in overrides if not given.startswith("input.")]:
            raise UsageError(f"--set {ignored[0]}: limits and conditions are those of the run's recipe; give --config")
        directory = read_run(target)
        return ModelSettings(limits_of(directory), directory.recipe.profile, config.input)
    if config_file is None and not has_baseline:
        raise UsageError(f"gate {target}: nothing is limited; give --config with [gate], or --baseline")
    source = LimitsSource(file="no file", sha256=sha256_bytes(b""), replaces_recipe=False)
    if config_file is not None:
        source = _source(config_file, replaces_recipe=of_run)
    return ModelSettings(Limits(config.gate, source), config.profile, config.input)
