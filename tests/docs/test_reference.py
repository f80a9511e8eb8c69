"""The reference pages say what the commands and the recipe are now, and every key of a recipe is described."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from docs.reference.generate import cli_page, formats_page, recipe_page
from ecd_deploy.cli import cli
from ecd_deploy.recipe.section import Section

FOLDER = Path(__file__).parents[2] / "docs/reference"


@pytest.mark.parametrize(
    ("name", "made"), [("cli.md", cli_page), ("recipe.md", recipe_page), ("../formats.md", formats_page)]
)
def test_the_page_is_current(name: str, made: Callable[[], str]) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == made(), "run `make reference`"


def test_every_command_and_option_is_on_the_page() -> None:
    page = cli_page()
    for name, command in cli.commands.items():
        section = page.partition(f"\n### {name}\n")[2].partition("\n### ")[0]
        options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
        assert [option for option in options if f"`{option}" not in section and f" {option}" not in section] == []


def test_patterns_of_paths_are_no_emphasis() -> None:
    assert r"FOLDER holds train/CLASS/\* and test/CLASS/\*, and" in cli_page()


def sections(above: type[Section] = Section) -> Iterator[type[Section]]:
    for section in above.__subclasses__():
        if section.__module__.startswith("ecd_deploy.recipe."):
            yield section
            yield from sections(section)


@pytest.mark.parametrize("section", list(sections()))
def test_every_field_of_a_recipe_is_described(section: type[Section]) -> None:
    assert section.__doc__
    # One that is a section says what it is by its docstring.
    values = {name: field for name, field in section.model_fields.items() if field.annotation not in [*sections()]}
    assert [name for name, field in values.items() if not field.description] == []
