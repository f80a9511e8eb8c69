"""What `ecd-deploy inspect` is asked about: a student by its name, or a recipe, with what is changed by options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ecd_deploy.errors import RecipeError, UsageError
from ecd_deploy.recipe.data import DataConfig
from ecd_deploy.recipe.method import MethodConfig
from ecd_deploy.recipe.recipe import BUILTIN_RECIPES, Recipe, load_recipe, parse_recipe

_CLASSES = 100
_COLOURS = 3
_LEAST_IMAGES = 2  # of a part of a batch, as in `Batch.split`
# What counts besides `method.*`; what else is set would have no effect.
_COUNTED = (
    "data.image_size",
    "student.num_classes",
    "train.batch_size",
    "train.gradient_accumulation",
    "train.mixed_precision",
)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is inspected.

    Attributes:
        student: its name, as in a recipe.
        classes: of the logits.
        in_channels: of the images.
        image_size: their side in pixels, or height and width; None is a square of the smallest of 32, 64 and 224 that
            the student takes.
        method: how the student is trained.
        any_stages: whether those of `method.stages` that the student lacks are left out.
        batch_size: images of one optimiser step.
        parts: into which a batch is to be cut, to bound memory.
        precision: the recipe's mixed precision.
        recipe: that is inspected; None where only a student was named.
    """

    student: str
    classes: int = _CLASSES
    in_channels: int = _COLOURS
    image_size: int | tuple[int, int] | None = None
    method: MethodConfig = field(default_factory=MethodConfig)
    any_stages: bool = False
    batch_size: int = 128
    parts: int = 1
    precision: Literal["no", "bf16", "fp16"] = "no"
    recipe: Recipe | None = None

    @property
    def used_parts(self) -> int:
        """Parts into which a batch is really cut: none is smaller than two images."""
        return max(1, min(self.parts, self.batch_size // _LEAST_IMAGES))

    @property
    def images_at_one_time(self) -> int:
        """Images of a forward: the batch, or the largest of its parts."""
        return -(-self.batch_size // self.used_parts)


@dataclass(frozen=True)
class _Images:
    """What a data set's images are: channels, side in pixels, classes."""

    channels: int
    side: int
    classes: int


_IMAGES: Mapping[str, _Images] = {
    "digits": _Images(1, 8, 10),
    "cifar10": _Images(3, 32, 10),
    "cifar100": _Images(3, 32, 100),
}


def read_subject(
    name: str, *, overrides: tuple[str, ...], options: Mapping[str, tuple[str, str]], in_channels: int | None
) -> Subject:
    """Find out what is meant; no image is read.

    Args:
        name: a student's, or that of a built-in recipe, or a path that ends in `.toml`.
        overrides: `key.path=value` each, as for `run`.
        options: what options of their own say, by their name: the key in a recipe, and the value as TOML.
        in_channels: of the images, where the recipe's data do not say.

    Raises:
        RecipeError: as for `run`, or the recipe leaves something open that only the images tell.
        UsageError: two options contradict each other, or one has no effect.
    """
    for option, (key, value) in options.items():
        _require_once(f"{option} {value.strip('[]').replace(' ', '')}", key, overrides)
    changes = (*overrides, *(f"{key}={value}" for key, value in options.values()))
    if name in BUILTIN_RECIPES.names() or name.endswith(".toml"):
        recipe = load_recipe(name, changes)
        subject = _of_recipe(recipe, in_channels)
    else:
        # The rules of a recipe hold: these are its sections, and data that nobody reads.
        text = f'name = "none"\n[data]\nsource = "imagefolder"\npath = "."\n[student]\nname = {json.dumps(name)}\n'
        recipe = parse_recipe(text, f"what is set for {name}", changes)
        _require_effect(name, overrides)
        subject = Subject(
            student=name,
            classes=recipe.student.num_classes or _CLASSES,
            in_channels=in_channels or _COLOURS,
            image_size=recipe.data.image_size,
            method=recipe.method,
            any_stages="stages" not in recipe.method.model_fields_set,
            batch_size=recipe.train.batch_size,
            parts=recipe.train.gradient_accumulation,
            precision=recipe.train.mixed_precision,
        )
    if "--stages" in options and subject.method.sites and subject.method.features != "block":
        sites = json.dumps(list(subject.method.sites))
        raise UsageError(f"--stages has no effect: method.sites is {sites}, which is connected instead of stages")
    return subject


def _of_recipe(recipe: Recipe, in_channels: int | None) -> Subject:
    known = _IMAGES.get(recipe.data.source)
    channels = known.channels if known else len(recipe.data.mean or ()) or None
    if channels is not None and in_channels is not None and in_channels != channels:
        raise UsageError(f"--in-channels {in_channels}: the images of recipe '{recipe.name}' have {channels}")
    classes = known.classes if known else _classes_of_files(recipe.data)
    if classes is not None and recipe.student.num_classes not in (None, classes):
        raise RecipeError(f"student.num_classes is {recipe.student.num_classes}, but the data have {classes} classes")
    classes = classes or recipe.student.num_classes
    if classes is None:
        missing = f"data.source '{recipe.data.source}' is not opened here"
        if recipe.data.source == "imagefolder":
            missing = f"there is no folder {Path(recipe.data.path or '') / 'train'} to count classes in"
        raise RecipeError(
            f"recipe '{recipe.name}': student.num_classes is not set, and {missing}; set it with --classes"
        )
    side = recipe.data.image_size or (known.side if known else None)
    if side is None:
        raise RecipeError(
            f"recipe '{recipe.name}': data.image_size is not set, so the images keep the size of their files, "
            "which are not read here; set it with --image-size"
        )
    return Subject(
        student=recipe.student.name,
        classes=classes,
        in_channels=channels or in_channels or _COLOURS,
        image_size=side,
        method=recipe.method,
        batch_size=recipe.train.batch_size,
        parts=recipe.train.gradient_accumulation,
        precision=recipe.train.mixed_precision,
        recipe=recipe,
    )


def _classes_of_files(data: DataConfig) -> int | None:
    # not at the top: it brings libraries along, which a student of a built-in data set is inspected without
    from ecd_deploy.data.imagefolder.listing import class_folders
    from ecd_deploy.data.sources.registry import open_source

    if data.source in ("csv", "parquet", "datasets"):
        return len(open_source(data).classes)
    folder = Path(data.path or "") / "train"
    return len(class_folders(folder)) if data.source == "imagefolder" and folder.is_dir() else None


def _require_once(option: str, key: str, overrides: tuple[str, ...]) -> None:
    for override in overrides:
        changed = override.partition("=")[0].strip()
        if f"{key}.".startswith(f"{changed}."):
            raise UsageError(f"{option} and --set {override} both set {key}: give one of them")


def _require_effect(student: str, overrides: tuple[str, ...]) -> None:
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key not in _COUNTED and key.partition(".")[0] != "method":
            raise UsageError(
                f"--set {override} has no effect on an inspection of the student {student}; keys that have are "
                f"method.*, {', '.join(_COUNTED)}"
            )
