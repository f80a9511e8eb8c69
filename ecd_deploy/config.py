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
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, ValidationError, model_validator

from ecd_deploy.data_config import DataConfig
from ecd_deploy.errors import RecipeError, did_you_mean
from ecd_deploy.export_config import ExportConfig
from ecd_deploy.files import sha256_bytes
from ecd_deploy.gate_config import GateConfig, ProfileConfig
from ecd_deploy.method_config import MethodConfig
from ecd_deploy.section import NonNegativeFloat, PositiveFloat, PositiveInt, Section


class StudentConfig(Section):
    """The network that is deployed."""

    name: str = Field(description="A built-in name, `torchvision:NAME`, `timm:NAME` or `package.module:factory`.")
    num_classes: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="Checked against the data; default: taken from the data."
    )


class TrainConfig(Section):
    """The optimisation; SGD, as in the paper's appendix A.1."""

    epochs: PositiveInt = 200
    batch_size: PositiveInt = Field(default=128, description="Images of one optimiser step, over all processes.")
    learning_rate: PositiveFloat = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: NonNegativeFloat = 5e-4
    schedule: Literal["multistep", "cosine"] = "multistep"
    milestones: tuple[PositiveInt, ...] = Field(
        default=(100, 150), description="Epochs after which multistep multiplies the rate by `decay`."
    )
    decay: Annotated[float, Field(gt=0, le=1)] = 0.1
    warmup_epochs: NonNegativeFloat = Field(default=0.0, description="Epochs of linear rise from zero.")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    gradient_accumulation: PositiveInt = Field(
        default=1, description="Parts into which a batch is cut, to bound memory; BN sees the parts."
    )
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    cuda_graph: Literal["auto", "never"] = Field(
        default="auto",
        description="Whether a training step on a GPU is recorded as a CUDA graph and then launched as a whole. With "
        "auto it is, unless something in it cannot be recorded; the log then says what.",
    )
    threads: PositiveInt | None = Field(default=None, description="CPU threads of torch; default: all cores.")
    channels_last: bool = Field(
        default=True,
        description="On a CPU, hold the student's features in channels_last, which is faster, if it runs in it.",
    )
    teacher_accuracy: bool = Field(
        default=True, description="Evaluate the teacher too after each epoch; without, evaluation is cheaper."
    )
    select: Literal["best", "last"] = Field(
        default="best",
        description="Which weights are deployed: best on the validation split, or of the last epoch. Without a "
        "validation split (data.validation_fraction 0) it must be last.",
    )
    checkpoint_minutes: NonNegativeFloat = Field(
        default=10.0, description="Minutes after which a checkpoint is saved within an epoch; 0: at its end only."
    )
    checkpoint_steps: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Steps after which a checkpoint is saved within an epoch; 0: by the clock only."
    )
    tensorboard: bool = Field(default=True, description="Write TensorBoard events beside metrics.jsonl.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones {list(self.milestones)} must rise strictly")
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} is longer than epochs {self.epochs}")
        if self.gradient_accumulation > self.batch_size:
            raise ValueError(f"gradient_accumulation {self.gradient_accumulation} exceeds batch_size {self.batch_size}")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


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
    folder = files("ecd_deploy.pipelines") / "recipes"
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
        text = (files("ecd_deploy.pipelines") / "recipes" / f"{name_or_path}.toml").read_text(encoding="utf-8")
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
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
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
    target[keys[-1]] = _parse_value(raw.strip())


def _parse_value(raw: str) -> Any:
    try:
        return tomllib.loads(f"value = {raw}")["value"]
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
