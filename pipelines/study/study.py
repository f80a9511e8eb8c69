"""A study: arms that are compared under one base recipe and the same seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from ecd_deploy.documents import BuiltinDocuments, parse_toml
from ecd_deploy.errors import RecipeError
from ecd_deploy.recipe.recipe import BUILTIN_RECIPES, Recipe, load_recipe
from ecd_deploy.recipe.section import Section

BUILTIN_STUDIES = BuiltinDocuments("study", "ecd_deploy.pipelines.study", "studies", RecipeError)

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
            raise ValueError(f"arms {names} repeat a name")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} repeat one")
        for name in (self.baseline, *(arm.baseline for arm in self.arms if arm.baseline)):
            if name not in names:
                raise ValueError(f"the baseline '{name}' is not an arm; arms are {', '.join(names)}")
        free = [arm.name for arm in self.arms if arm.teacher is None]
        for arm in self.arms:
            if arm.teacher is not None and arm.teacher not in free:
                raise ValueError(
                    f"the teacher '{arm.teacher}' of '{arm.name}' must be an arm without a teacher of its own: "
                    f"{', '.join(free)}"
                )
        return self

    def arm(self, name: str) -> Arm:
        """Return an arm by its name."""
        return next(arm for arm in self.arms if arm.name == name)

    def baseline_of(self, arm: Arm) -> Arm:
        """Return the arm that an arm is compared with, which may be itself."""
        return self.arm(arm.baseline or self.baseline)


def load_study(name_or_path: str) -> Study:
    """Read a built-in study by name or a TOML file by path.

    Raises:
        RecipeError: naming the key's path and the value.
    """
    where = f"study {name_or_path}"
    document = parse_toml(BUILTIN_STUDIES.text_or_file(name_or_path), where, RecipeError)
    study = Study.from_document(document, f"{where} cannot be used", RecipeError)
    if study.recipe in BUILTIN_RECIPES.names():
        return study
    return study.model_copy(update={"recipe": str(Path(name_or_path).parent / study.recipe)})


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
        own, other = (recipe_of(study, one, study.seeds[0]).choices() for one in (arm, baseline))
        differing = [key for key in own if key.startswith(("data.", "student.", "train.")) and own[key] != other[key]]
        if differing:
            values = "; ".join(f"{key} is {own[key]} and not {other[key]}" for key in differing)
            raise RecipeError(
                f"arm '{arm.name}' cannot be compared with '{baseline.name}': {values}. An arm may change "
                "method.* and augment.*; for the rest give it a baseline of its own"
            )
