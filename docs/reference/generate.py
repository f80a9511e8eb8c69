"""Writes what the pages say of the commands, the recipe and the measured formats, from these: `make reference`."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ecd_deploy.cli import cli
from ecd_deploy.recipe.input import ModelConfig
from ecd_deploy.recipe.recipe import Recipe

_MADE = "<!-- Made by `make reference`; do not edit. -->"
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}
_RECIPE = """A recipe is a TOML file. What is required must be given, and an unknown key is refused.
`--set SECTION.KEY=VALUE` sets one value from the command line; `ecd-deploy schema` prints a JSON Schema for editors."""
_MODEL = """The file of `--config` for `evaluate`, `gate --data` and `predict` takes `[gate]` and `[profile]`
as they stand above, and what the model expects:"""
_FOLDER = Path(__file__).parent
_RESULT = _FOLDER.parents[1] / "benchmarks/results/artefact_speed.json"
_FIGURE = re.compile(r"([\w-]+): (size|speed) over fp32 ONNX, ([^()]+?)( \(.*\))?")
_TABLE = re.compile(r"(?<=<!-- Made by `make bench-formats`; do not edit. -->\n).*?(?=<!-- end -->)", re.DOTALL)


def main() -> None:
    """Write both pages of the reference, and the table on the page of formats."""
    for name, text in (("cli.md", cli_page()), ("recipe.md", recipe_page()), ("../formats.md", formats_page())):
        (_FOLDER / name).write_text(text, encoding="utf-8")


def formats_page() -> str:
    """The page of formats, with the sizes and speeds that the benchmark `artefact_speed` found."""
    found: dict[str, dict[str, str]] = {}
    for figure in json.loads(_RESULT.read_text(encoding="utf-8"))["figures"]:
        if match := _FIGURE.fullmatch(figure["name"]):
            name, what, student, busy = match.groups()
            found.setdefault(name, {})[f"{what}, {student}"] = "not valid" if busy else f"{figure['value']:.2f}"
    columns = list(dict.fromkeys(column for row in found.values() for column in row))
    lines = [f"| format | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    lines += [f"| `{name}` | {' | '.join(row.get(at, '') for at in columns)} |" for name, row in found.items()]
    table = "\n".join(lines) if found else "Not measured in this form yet."
    page = (_FOLDER.parent / "formats.md").read_text(encoding="utf-8")
    return _TABLE.sub(lambda _: f"\n{table}\n\n", page)


def cli_page() -> str:
    """Every command with its arguments and options, in the order of `ecd-deploy --help`."""
    root = click.Context(cli, info_name="ecd-deploy")
    lines = [_MADE, "", "# Commands", "", *_help(cli), "", *_options(root)]
    for section in cli.sections:
        lines += ["", f"## {section.title}"]
        for command in section.commands:
            context = click.Context(command, info_name=command.name, parent=root)
            usage = " ".join((context.command_path, *command.collect_usage_pieces(context)))
            lines += ["", f"### {command.name}", "", "```text", usage, "```", "", *_help(command), ""]
            lines += _options(context)
    return _page(lines)


def _help(command: click.Command) -> list[str]:
    return _literal(inspect.cleandoc(command.help or "")).splitlines()


def _options(context: click.Context) -> Iterator[str]:
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1] and "--help" not in parameter.opts:
            yield f"- `{record[0]}`: {_literal(record[1])}"


def _literal(text: str) -> str:
    """Help is no Markdown: what would be emphasis in it is a pattern of paths."""
    return text.replace("*", r"\*")


def recipe_page() -> str:
    """Every key of a recipe, section by section, then those of the file of `--config` for any model."""
    schema, model = Recipe.model_json_schema(), ModelConfig.model_json_schema()
    keys = {name: field for name, field in schema["properties"].items() if "$ref" not in field}
    lines = [
        *(_MADE, "", "# Recipe", ""),
        _RECIPE,
        *("", "## Outside of sections", ""),
        *_table(keys, schema["required"]),
    ]
    for name, field in schema["properties"].items():
        if "$ref" in field:
            lines += _section(name, _name(field["$ref"]), schema["$defs"])
    lines += [
        *("", "## A model that was not made here", ""),
        _MODEL,
        *_section("input", "InputConfig", model["$defs"]),
    ]
    return _page(lines)


def _section(path: str, name: str, definitions: dict[str, Any]) -> Iterator[str]:
    """A heading, what the section is, its keys, and then the sections within it."""
    definition = definitions[name]
    keys, within = {}, []
    for key, field in definition["properties"].items():
        inner = _inner(field)
        if inner is None:
            keys[key] = field
        else:
            placed = f"{path}.{key}" + ('."NAME"' if "additionalProperties" in field else "")
            within.append((placed, _name(inner)))
    yield from ("", f"## `[{path}]`", "", *definition["description"].splitlines(), "")
    yield from _table(keys, definition.get("required", []))
    for placed, inner_name in within:
        yield from _section(placed, inner_name, definitions)


def _inner(field: dict[str, Any]) -> str | None:
    """The reference to the section that a field is, or holds by name; None for a value."""
    options = [field, *field.get("anyOf", []), field.get("additionalProperties", {})]
    return next((option["$ref"] for option in options if isinstance(option, dict) and "$ref" in option), None)


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]


def _table(fields: dict[str, Any], required: list[str]) -> Iterator[str]:
    yield from ("| key | takes | default | what it is |", "|---|---|---|---|")
    for name, field in fields.items():
        default = "" if name in required or field["default"] is None else f"`{json.dumps(field['default'])}`"
        shown = "required" if name in required else default
        yield f"| `{name}` | {_takes(field)} | {shown} | {field['description']} |"


def _takes(field: dict[str, Any]) -> str:
    """What values a field of a JSON Schema takes, in words."""
    if "anyOf" in field:
        return " or ".join(_takes(option) for option in field["anyOf"] if option.get("type") != "null")
    if "enum" in field:
        return ", ".join(f"`{choice}`" for choice in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field["type"] == "array":
        parts = field.get("prefixItems")
        return f"[{', '.join(map(_takes, parts))}]" if parts else f"list, each: {_takes(field['items'])}"
    limits = [f"{words} {field[bound]}" for bound, words in _BOUNDS.items() if bound in field]
    return f"{field['type']} {', '.join(limits)}".rstrip()


def _page(lines: list[str]) -> str:
    return "\n".join(line.rstrip() for line in lines) + "\n"


if __name__ == "__main__":
    main()
