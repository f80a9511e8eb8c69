"""What every page shows must work as it stands there, and the site has every page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import ecd_deploy
from ecd_deploy.cli import cli
from ecd_deploy.exporters.registry import exporter_for
from ecd_deploy.pipelines.device.budgets import BUILTIN_DEVICES, load_device
from ecd_deploy.recipe.export import BUILTIN_FORMATS, ExportConfig
from ecd_deploy.recipe.recipe import parse_recipe

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks/README.md"])
RECIPES = [ROOT / "README.md", ROOT / "docs/recipes.md"]
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", flags=re.DOTALL | re.MULTILINE)


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in FENCED.findall(page.read_text(encoding="utf-8")) if language in languages]


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for name, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", text):
        target = page.parent / name if name else page
        assert target.exists(), name
        assert not anchor or anchor in anchors(target), f"{name}#{anchor}"


def test_the_first_page_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


@pytest.mark.parametrize("page", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES])
def test_commands_exist(page: Path) -> None:
    text = "\n".join(blocks(page, "sh", "console", "text"))
    assert set(re.findall(r"^(?:\$ )?ecd-deploy ([a-z]+)", text, flags=re.MULTILINE)) <= set(cli.commands)


@pytest.mark.parametrize("recipe", [recipe for page in RECIPES for recipe in blocks(page, "toml")])
def test_recipes_are_accepted(recipe: str) -> None:
    assert parse_recipe(recipe, "the page").name


def test_python_runs() -> None:
    (code,) = blocks(ROOT / "docs/reference/api.md", "python")
    namespace: dict[str, object] = {}
    exec(code, namespace)
    assert type(namespace["plain"]).__name__ == "CifarResNet"


def test_every_public_name_is_on_the_page_of_python() -> None:
    page = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^::: ecd_deploy\.(\w+)$", page, flags=re.MULTILINE))
    assert shown == set(ecd_deploy.__all__) - {"__version__"}


def navigation(entries: list[Any]) -> list[str]:
    names: list[str] = []
    for entry in entries:
        for place in entry.values():
            names += navigation(place) if isinstance(place, list) else [place]
    return names


def test_the_navigation_has_every_page() -> None:
    listed = navigation(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    written = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    code = (ROOT / "docs/hooks.py").read_text(encoding="utf-8")
    brought = set(re.findall(r'^    "\S+": "(\S+\.md)",$', code, flags=re.MULTILINE))
    assert len(listed) == len(set(listed))
    assert set(listed) == written | brought


def cells(page: str) -> list[list[str]]:
    rows = re.findall(r"^\| (`.*) \|$", (ROOT / "docs" / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [[cell.strip().strip("`") for cell in row.split("|")] for row in rows]


def test_the_devices_are_those_of_the_files() -> None:
    devices = [load_device(name) for name in BUILTIN_DEVICES.names()]
    assert cells("devices.md") == [
        [
            *(device.name, device.description, str(device.threads)),
            *(f"{device.budget.p90_ms:g} ms", f"{device.budget.size_mb:g} MB", f"{device.budget.peak_memory_mb:g} MB"),
        ]
        for device in devices
    ]


def test_the_formats_are_those_that_there_are() -> None:
    every = cells("formats.md")
    rows, measured = (every[: len(BUILTIN_FORMATS)], every[len(BUILTIN_FORMATS) :])
    assert sorted(row[0] for row in rows) == sorted(BUILTIN_FORMATS)
    assert {row[0] for row in measured} == {*BUILTIN_FORMATS} - {"onnx"}  # which the others are measured against
    without_extra = [row for row in rows if not row[3]]
    assert len(without_extra) >= 8
    for name, filename, *_ in without_extra:
        assert exporter_for(name, ExportConfig()).filename == filename
