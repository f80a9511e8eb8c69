"""A study: arms that are compared under one base recipe and the same seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from ecd_deploy.errors import RecipeError, did_you_mean
from ecd_deploy.recipe.recipe import Recipe, builtin_recipes, load_recipe
from ecd_deploy.recipe.section import Section
from ecd_deploy.recipe.toml import parse_toml

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
_Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Arm(Section):
    """One way of training, run once for each seed."""

    name: _Name
    label: str = Field(default="", description="What tables call it. Default: the name.")
    set: tuple[str, ...] = Field(default=(), description="`key.path=value` each, on top of the study's own.")
    baseline: _Name | None = Field(
        default=None, description="The arm that it is compared with. Default: the study's; a baseline names itself."
    )
    teacher: _Name | None = Field(
        default=None, description="The arm whose run of the same seed is the pre-trained teacher (method.pretrained)."
    )
    claim: str = Field(default="", description="What the paper's text says of it, in the paper's own figures.")

    @property
    def title(self) -> str:
        """The label, or the name where there is none."""
        return self.label or self.name


class Study(Section):
    """What `compare` runs; every figure of the result is of this study, but for the arms' `claim`."""

    name: _Name
    description: str = ""
    recipe: str = Field(description="The base: a built-in recipe's name, or a path that is relative to this file.")
    seeds: tuple[_Seed, ...] = Field(min_length=1)
    baseline: _Name = Field(description="Name of the arm that the others are compared with.")
    set: tuple[str, ...] = Field(default=(), description="`key.path=value` each, for all arms.")
    arms: tuple[Arm, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise ValueError(f"arms {names} have a name twice")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} have one twice")
        for name in (self.baseline, *(arm.baseline for arm in self.arms if arm.baseline)):
            if name not in names:
                raise ValueError(f"the baseline '{name}' is no arm; arms are {', '.join(names)}")
        free = [arm.name for arm in self.arms if arm.teacher is None]
        for arm in self.arms:
            if arm.teacher is not None and arm.teacher not in free:
                raise ValueError(
                    f"the teacher '{arm.teacher}' of '{arm.name}' is no arm without a teacher of its own; "
                    f"those are {', '.join(free)}"
                )
        return self

    def arm(self, name: str) -> Arm:
        """Return an arm by its name."""
        return next(arm for arm in self.arms if arm.name == name)

    def baseline_of(self, arm: Arm) -> Arm:
        """Return the arm that an arm is compared with, which may be itself."""
        return self.arm(arm.baseline or self.baseline)


def builtin_studies() -> tuple[str, ...]:
    """Names of the studies that come with the package, sorted."""
    folder = files("ecd_deploy.pipelines.study") / "studies"
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load_study(name_or_path: str) -> Study:
    """Read a built-in study by name or a TOML file by path.

    Raises:
        RecipeError: naming the key's path and the value.
    """
    where, folder = name_or_path, Path(name_or_path).parent
    if name_or_path in builtin_studies():
        text = (files("ecd_deploy.pipelines.study") / "studies" / f"{name_or_path}.toml").read_text(encoding="utf-8")
    else:
        try:
            text = Path(name_or_path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            hint = did_you_mean(name_or_path, builtin_studies())
            raise RecipeError(
                f"no study '{name_or_path}': neither a file nor a built-in name{hint}; "
                f"built in are {', '.join(builtin_studies())}"
            ) from error
    try:
        study = Study.model_validate(parse_toml(text), strict=False)
    except ValidationError as error:
        raise RecipeError(f"{where} cannot be used:\n" + "\n".join(_lines(error))) from error
    except ValueError as error:
        raise RecipeError(f"{where} is not valid TOML: {error}") from error
    if study.recipe in builtin_recipes():
        return study
    return study.model_copy(update={"recipe": str(folder / study.recipe)})


def recipe_of(study: Study, arm: Arm, seed: int, out: Path = Path()) -> Recipe:
    """Resolve the recipe of one run; `out`, the study's folder, is where its teacher's run is.

    Raises:
        RecipeError: an override is wrong.
    """
    own = [f"seed={seed}", f"name={arm.name}"]
    if arm.teacher is not None:
        own.append(f"method.pretrained.run={json.dumps(str(run_directory(out, arm.teacher, seed)))}")
    return load_recipe(study.recipe, (*study.set, *arm.set, *own))


def run_directory(out: Path, arm: str, seed: int) -> Path:
    """Where a run of a study is kept."""
    return out / arm / f"seed-{seed}"


def check_fairness(study: Study) -> None:
    """See that each arm has its baseline's student, images, order and budget.

    Raises:
        RecipeError: naming the keys in which an arm differs and may not.
    """
    for arm in study.arms:
        baseline = study.baseline_of(arm)
        own, other = (_comparable(recipe_of(study, one, study.seeds[0])) for one in (arm, baseline))
        differing = [key for key in own if own[key] != other[key]]
        if differing:
            values = "; ".join(f"{key} is {own[key]} and not {other[key]}" for key in differing)
            raise RecipeError(
                f"arm '{arm.name}' cannot be compared with '{baseline.name}': {values}. An arm may change "
                "method.*; for the rest give it a baseline of its own"
            )


def _comparable(recipe: Recipe) -> Mapping[str, Any]:
    document = recipe.model_dump(mode="json", include={"data", "student", "train"})
    return {f"{section}.{key}": value for section, fields in document.items() for key, value in fields.items()}


def _lines(error: ValidationError) -> list[str]:
    return [
        f"  {'.'.join(map(str, detail['loc'])) or 'study'}: {detail['msg'].removeprefix('Value error, ')}"
        for detail in error.errors()
    ]
