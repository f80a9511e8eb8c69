"""Every choice that the recipe's schema documents, and few recipes that hold them all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ecd_deploy.errors import RecipeError
from ecd_deploy.recipe.export import BUILTIN_FORMATS, EXTRA_FORMATS
from ecd_deploy.recipe.recipe import Recipe, load_recipe

Value = bool | int | str
Settings = Mapping[str, Any]

FOLDERS = "FOLDERS"
TEACHER = "TEACHER"
WEIGHTS = "WEIGHTS"
"""Stand for a folder of images, for a trained run of the digits and for a file of weights, until a test has made them.
"""

ELSEWHERE: Mapping[tuple[str, Value], str] = {
    ("train.mixed_precision", "fp16"): "needs a GPU; benchmarks/gpu trains with it",
}
"""Choices that a machine without network and GPU cannot run, and why."""

_OF_ECD = {"method.name": "ecd"}
_OF_INT8 = {"export.formats": ["onnx", "onnx-int8"]}
_OF_FOLDERS = {"data.source": "imagefolder", "data.path": FOLDERS, "data.image_size": 8}
_OF_TEACHER = {"data.source": "digits", "method.pretrained.run": TEACHER, "method.pretrained.negatives": 8}

NEEDS: Mapping[str | tuple[str, Value], Settings] = {
    ("data.loading", "files"): _OF_FOLDERS,
    "data.skip_bad": _OF_FOLDERS,
    ("method.name", "distil"): {**_OF_TEACHER, "method.pretrained.losses": ["kd"]},
    **{
        f"method.{field}": _OF_ECD
        for field in ("teacher", "mixture", "teacher_init", "connection", "density", "backend")
    },
    **{f"method.{field}": _OF_ECD for field in ("logits", "features")},
    "method.pretrained.losses": {**_OF_TEACHER, "method.name": "distil"},
    "student.head": {"data.source": "digits", "student.weights": WEIGHTS, "data.mean": [0.3], "data.std": [0.4]},
    ("train.optimizer", "adamw"): {"train.learning_rate": 0.001},
    "train.teacher_accuracy": _OF_ECD,
    "profile.runtimes": {"profile.runtimes": ["onnxruntime"]},
    ("export.preprocessing", "full"): {**_OF_FOLDERS, "export.formats": ["onnx"]},
    "export.formats": {"export.formats": ["onnx"]},
    **{f"export.int8.{field}": _OF_INT8 for field in ("target", "quant_format", "method", "per_channel")},
    "export.int8.vnni": {**_OF_INT8, "export.int8.target": "x86"},
}
"""What else must be set for a field, or for one of its values, to be accepted and to have an effect."""

PACKAGES: Mapping[tuple[str, Value], str] = {
    **{("export.formats", name): package for name, package in EXTRA_FORMATS.items()},
    **{("train.trackers", name): name for name in ("mlflow", "wandb")},
    **{("profile.runtimes", name): EXTRA_FORMATS[name] for name in ("executorch", "litert", "ncnn", "openvino")},
    **{("method.pretrained.losses", loss): "torchdistill" for loss in ("at", "vid", "pkt", "ft", "rkd", "cc", "crd")},
}
"""Of an extra, without which a choice is refused."""


@dataclass(frozen=True)
class Choice:
    """One value of one field, such as `entropy` of `export.int8.method`; `listed` where the field is a list of such."""

    key: str
    value: Value
    listed: bool

    @property
    def name(self) -> tuple[str, Value]:
        """As it is looked up."""
        return self.key, self.value

    @property
    def settings(self) -> dict[str, Any]:
        """What sets it, with what it needs."""
        needs = {**NEEDS.get(self.key, {}), **NEEDS.get(self.name, {})}
        return merged(needs, {self.key: [self.value] if self.listed else self.value}) or {}


def documented_choices() -> tuple[Choice, ...]:
    """Every value of each field that has a countable set of them: names, booleans, integers within two bounds."""
    schema = Recipe.model_json_schema()
    found = tuple(_of_section(schema, schema["$defs"], ""))
    formats = tuple(Choice("export.formats", name, listed=True) for name in BUILTIN_FORMATS)
    return (*found, *formats)


def one_of_each_field(choices: Iterable[Choice]) -> tuple[Choice, ...]:
    """Of each field the first value that the recipe `digits` does not have."""
    usual = load_recipe("digits").choices()
    first: dict[str, Choice] = {}
    for choice in choices:
        held = usual.get(choice.key)
        if choice.value != held and not (isinstance(held, list) and choice.value in held):
            first.setdefault(choice.key, choice)
    return tuple(first.values())


def packed(choices: Iterable[Choice], base: tuple[str, ...]) -> tuple[dict[str, Any], ...]:
    """Few settings, each of a recipe that is accepted, that hold every choice.

    Raises:
        AssertionError: a choice is accepted in none.
    """
    packs: list[dict[str, Any]] = []
    for choice in choices:
        for index, pack in enumerate(packs):
            both = merged(pack, choice.settings)
            if both is not None and _refusal(both, base) is None:
                packs[index] = both
                break
        else:
            refusal = _refusal(choice.settings, base)
            assert refusal is None, f"say in NEEDS what {choice.key} {choice.value!r} needs, or in ELSEWHERE: {refusal}"
            packs.append(choice.settings)
    return tuple(packs)


def merged(one: Settings, other: Settings) -> dict[str, Any] | None:
    """Both settings, lists joined; None where they contradict each other."""
    result = dict(one)
    for key, value in other.items():
        if isinstance(value, list):
            result[key] = list(dict.fromkeys([*result.get(key, []), *value]))
        elif result.setdefault(key, value) != value:
            return None
    return result


def overrides(settings: Settings) -> tuple[str, ...]:
    """As `--set` takes them."""
    return tuple(f"{key}={json.dumps(value)}" for key, value in settings.items())


def _refusal(settings: Settings, base: tuple[str, ...]) -> RecipeError | None:
    try:
        load_recipe("digits", (*base, *overrides(settings)))
    except RecipeError as error:
        return error
    return None


def _of_section(schema: Mapping[str, Any], definitions: Mapping[str, Any], above: str) -> Iterator[Choice]:
    for name, field in schema["properties"].items():
        yield from _of_field(field, definitions, f"{above}{name}", listed=False)


def _of_field(field: Mapping[str, Any], definitions: Mapping[str, Any], key: str, *, listed: bool) -> Iterator[Choice]:
    values: Iterable[Value] = ()
    if "$ref" in field:
        yield from _of_section(definitions[field["$ref"].rpartition("/")[2]], definitions, f"{key}.")
    for part in field.get("anyOf", ()):
        yield from _of_field(part, definitions, key, listed=listed)
    if "items" in field:
        yield from _of_field(field["items"], definitions, key, listed=True)
    if "enum" in field:
        values = field["enum"]
    elif field.get("type") == "boolean":
        values = (False, True)
    elif field.get("type") == "integer" and {"minimum", "maximum"} <= set(field):
        values = range(field["minimum"], field["maximum"] + 1)
    for value in values:
        yield Choice(key, value, listed)
