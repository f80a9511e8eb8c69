"""The recipe: every choice of a run, read strictly from TOML.

Each field is documented and checked here, and nowhere else. Fields that the paper leaves open
(router reduction, temperature, initialisation) are marked as this project's choice.
"""

from __future__ import annotations

import json
import tomllib
from importlib.resources import files
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Self, get_args

from pydantic import Field, ValidationError, model_validator

from ecd_deploy.errors import RecipeError, did_you_mean
from ecd_deploy.files import sha256_bytes
from ecd_deploy.recipe.data import DataConfig
from ecd_deploy.recipe.export import ExportConfig
from ecd_deploy.recipe.gate import GateConfig
from ecd_deploy.recipe.method import MethodConfig
from ecd_deploy.recipe.profile import ProfileConfig
from ecd_deploy.recipe.section import Section
from ecd_deploy.recipe.toml import parse_toml
from ecd_deploy.recipe.train import TrainConfig


class StudentConfig(Section):
    """The network that is deployed."""

    name: str = Field(description="A built-in name, `torchvision:NAME`, `timm:NAME` or `package.module:factory`.")
    num_classes: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="Checked against the data; default: taken from the data."
    )


class Recipe(Section):
    """Everything that a run needs to know."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: DataConfig
    student: StudentConfig
    method: MethodConfig = MethodConfig()
    train: TrainConfig = TrainConfig()
    export: ExportConfig = ExportConfig()
    profile: ProfileConfig = ProfileConfig()
    gate: GateConfig = GateConfig()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.data.validation_fraction > 0:
            return self
        if self.train.select == "best":
            raise ValueError(
                "train.select is 'best', and data.validation_fraction 0 leaves no images to choose an epoch by: set "
                "train.select to 'last'"
            )
        if self.export.int8.max_drop is not None:
            raise ValueError(
                f"export.int8.max_drop {self.export.int8.max_drop} is watched on the validation split, and "
                "data.validation_fraction 0 leaves none: remove it, or set gate.max_drop, which is of the test images"
            )
        return self

    def canonical_json(self) -> str:
        """The resolved recipe as one JSON line with sorted keys."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def digest(self) -> str:
        """SHA-256 of the resolved recipe."""
        return sha256_bytes(self.canonical_json().encode())


def builtin_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with the package, sorted."""
    folder = files("ecd_deploy.recipe") / "recipes"
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load_recipe(name_or_path: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a built-in recipe by name or a TOML file by path, apply overrides, and check it.

    Args:
        name_or_path: a built-in name, or a path that ends in `.toml`.
        overrides: `key.path=value` each; the value is TOML, or a bare string where it is not.

    Raises:
        RecipeError: naming the key's path, the value and the choices.
    """
    if name_or_path in builtin_recipes():
        text = (files("ecd_deploy.recipe") / "recipes" / f"{name_or_path}.toml").read_text(encoding="utf-8")
        where = f"recipe '{name_or_path}'"
    else:
        text = _read_recipe_file(name_or_path)
        where = name_or_path
    return parse_recipe(text, where, overrides)


def parse_recipe(text: str, where: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """Check a recipe given as TOML text; `where` names its origin in errors.

    Raises:
        RecipeError: naming the key's path, the value and the choices.
    """
    try:
        document = parse_toml(text)
    except ValueError as error:
        raise RecipeError(f"{where} is not valid TOML: {error}") from error
    for override in overrides:
        _apply_override(document, override)
    try:
        return Recipe.model_validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        raise RecipeError(_explain(error, where)) from error


def _read_recipe_file(name_or_path: str) -> str:
    path = Path(name_or_path)
    if not path.is_file():
        hint = did_you_mean(name_or_path, builtin_recipes())
        raise RecipeError(
            f"no recipe '{name_or_path}': neither a file nor a built-in name{hint}; "
            f"built in are {', '.join(builtin_recipes())}"
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read recipe {path}: {error}") from error


def _apply_override(document: dict[str, Any], override: str) -> None:
    key_path, separator, raw = override.partition("=")
    keys = key_path.strip().split(".")
    if not separator or not all(keys):
        raise RecipeError(f"--set {override}: expected key.path=value, for example train.epochs=1")
    target = document
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise RecipeError(f"--set {override}: '{key}' is a value, not a section")
    try:
        target[keys[-1]] = _parse_value(raw.strip())
    except ValueError as error:
        raise RecipeError(f"--set {key_path.strip()}: this value cannot be used: {error}") from error


def _parse_value(raw: str) -> Any:
    try:
        return parse_toml(f"value = {raw}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return raw


def _explain(error: ValidationError, where: str) -> str:
    lines = [f"{where} cannot be used:"]
    for detail in error.errors():
        path = ".".join(str(part) for part in detail["loc"]) or "recipe"
        if detail["type"] == "extra_forbidden":
            choices = _allowed_keys(detail["loc"][:-1])
            hint = did_you_mean(str(detail["loc"][-1]), choices)
            lines.append(f"  {path}: unknown key{hint}; known are {', '.join(choices)}")
        elif detail["type"] == "missing":
            lines.append(f"  {path}: is missing")
        else:
            message = detail["msg"].removeprefix("Value error, ")
            value = detail["input"]
            shown = "" if isinstance(value, dict) else f" (it is {value!r})"
            lines.append(f"  {path}: {message}{shown}")
    return "\n".join(lines)


def _allowed_keys(location: tuple[int | str, ...]) -> tuple[str, ...]:
    section: Any = Recipe
    for part in location:
        annotation = section.model_fields[part].annotation
        section = next((kind for kind in get_args(annotation) if kind is not NoneType), annotation)
    return tuple(section.model_fields)
