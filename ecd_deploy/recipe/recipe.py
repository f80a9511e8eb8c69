"""The recipe: every choice of a run, read strictly from TOML.

Each field is documented and checked here, and nowhere else. Fields that the paper leaves open
(router reduction, temperature, initialisation) are marked as this project's choice.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from os import PathLike, fspath
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from ecd_deploy.documents import BuiltinDocuments, parse_toml, toml_values
from ecd_deploy.errors import RecipeError
from ecd_deploy.files import sha256_bytes
from ecd_deploy.recipe.augment import AugmentConfig
from ecd_deploy.recipe.data import DataConfig
from ecd_deploy.recipe.export import ExportConfig
from ecd_deploy.recipe.gate import GateConfig
from ecd_deploy.recipe.method import MethodConfig
from ecd_deploy.recipe.profile import ProfileConfig
from ecd_deploy.recipe.section import Section
from ecd_deploy.recipe.student import StudentConfig
from ecd_deploy.recipe.train import TrainConfig

BUILTIN_RECIPES = BuiltinDocuments("recipe", "ecd_deploy.recipe", "recipes", RecipeError)


class Recipe(Section):
    """Everything that a run needs to know: read by `load_recipe`, or made of its sections."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="What folders, reports and bundles call the run."
    )
    description: str = Field(
        default="", description="One line for `ecd-deploy recipes` and for the reader of the file."
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        default=0, description="Of initial weights, validation cut, order of the images and augmentation."
    )
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    student: StudentConfig
    method: MethodConfig = MethodConfig()
    train: TrainConfig = TrainConfig()
    export: ExportConfig = ExportConfig()
    profile: ProfileConfig = ProfileConfig()
    gate: GateConfig = GateConfig()

    @model_validator(mode="after")
    def _check(self) -> Self:
        # whether a folder holds validation images is seen when the images are opened
        if self.data.validation_fraction == 0 and not self.data.may_have_validation and self.need_of_validation:
            raise ValueError(self.need_of_validation)
        if self.gate.artefact not in (choices := ("recommended", "all", *self.export.formats)):
            raise ValueError(f"gate.artefact is '{self.gate.artefact}', and is one of {', '.join(choices)}")
        if self.export.preprocessing == "full" and self.data.image_size is None:
            raise ValueError(
                "export.preprocessing is 'full', and data.image_size, which images are brought to, not set"
            )
        has_crd = self.method.pretrained is not None and "crd" in self.method.pretrained.losses
        if has_crd and self.train.sampling == "balanced":
            raise ValueError(
                "train.sampling 'balanced' repeats images, and method.pretrained.losses 'crd' needs those of a batch "
                "to differ: set train.class_weights or train.logit_adjustment instead"
            )
        if has_crd and self.augment.mixes_labels:
            key = "cutmix" if self.augment.mixup is None else "mixup"
            raise ValueError(
                f"augment.{key} {getattr(self.augment, key)} makes images of two classes, and the loss 'crd' of "
                "method.pretrained.losses contrasts images of one: remove one of them"
            )
        return self

    @model_validator(mode="after")
    def _follow_weights(self) -> Self:
        """Let the teacher start as the student does, where that has weights and nothing else is said."""
        if self.student.weights is not None and "teacher_init" not in self.method.model_fields_set:
            followed = self.method.model_copy(update={"teacher_init": "student"})
            followed.check_teacher_init()
            object.__setattr__(self, "method", followed)  # frozen for everybody else
        return self

    @property
    def need_of_validation(self) -> str | None:
        """What is asked for that needs validation images, and the way out where there are none; None if nothing is."""
        if self.train.select != "last":
            return (
                f"train.select is '{self.train.select}', and data.validation_fraction 0 leaves no images to choose an "
                "epoch by: set train.select to 'last'"
            )
        if self.train.patience is not None:
            return (
                f"train.patience {self.train.patience} is counted on the validation split, and "
                "data.validation_fraction 0 leaves none: remove it"
            )
        if self.export.int8.max_drop is not None:
            return (
                f"export.int8.max_drop {self.export.int8.max_drop} is watched on the validation split, and "
                "data.validation_fraction 0 leaves none: remove it, or set gate.max_drop, which is of the test images"
            )
        return None

    def canonical_json(self) -> str:
        """The resolved recipe as one JSON line with sorted keys."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def choices(self) -> dict[str, Any]:
        """Every value by its key's path, such as `train.epochs`."""
        return dict(_flat(self.model_dump(mode="json"), ""))

    def digest(self) -> str:
        """SHA-256 of the resolved recipe."""
        return sha256_bytes(self.canonical_json().encode())


def _flat(section: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def load_recipe(name_or_path: str | PathLike[str], overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a built-in recipe by name or a TOML file by path, apply overrides, and check it.

    Args:
        name_or_path: a built-in name, or a path.
        overrides: `key.path=value` each; the value is TOML, or a bare string where it is not.

    Raises:
        RecipeError: naming the key's path, the value and the choices.
    """
    name = fspath(name_or_path)
    return parse_recipe(BUILTIN_RECIPES.text_or_file(name), f"recipe {name}", overrides)


def parse_recipe(text: str, where: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """Check a recipe given as TOML text; `where` names its origin in errors.

    Raises:
        RecipeError: naming the key's path, the value and the choices.
    """
    document = parse_toml(text, where, RecipeError)
    for override in overrides:
        apply_override(document, override)
    _rename_tensorboard(document)
    return Recipe.from_document(document, f"{where} cannot be used", RecipeError)


def _rename_tensorboard(document: dict[str, Any]) -> None:
    """Read `train.tensorboard`, which recipes and run directories had before `train.trackers`."""
    train = document.get("train")
    if isinstance(train, dict) and isinstance(train.get("tensorboard"), bool) and "trackers" not in train:
        train["trackers"] = ["tensorboard"] if train.pop("tensorboard") else []


def apply_override(document: dict[str, Any], override: str) -> None:
    """Set one value of a document, `key.path=value`.

    Raises:
        RecipeError: it is not of this form, or the value cannot be used.
    """
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
        return toml_values(f"value = {raw}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return raw
