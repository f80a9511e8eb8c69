"""What the README shows must work as it stands there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ecd_deploy.cli import cli
from ecd_deploy.recipe.recipe import parse_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("recipe", blocks("toml"))
def test_recipes_are_accepted(recipe: str) -> None:
    assert parse_recipe(recipe, "README.md").name


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code: str) -> None:
    namespace: dict[str, object] = {}
    exec(code, namespace)
    assert type(namespace["plain"]).__name__ == "CifarResNet"


def test_commands_exist() -> None:
    shown = re.findall(r"^ecd-deploy ([a-z]+)", "\n".join(blocks("sh")), flags=re.MULTILINE)
    assert shown
    assert set(shown) <= set(cli.commands)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_transcript_is_what_was_printed_when_it_was_measured() -> None:
    result = json.loads((ROOT / "benchmarks/results/digits_demo.json").read_text())
    run = result["raw"]["runs"][0]
    assert (run["seed"], run["exit_code"]) == (0, 0)
    (transcript,) = blocks("text")
    printed = {line.rstrip() for line in run["output"]}
    assert len(transcript.splitlines()) > 10
    assert set(transcript.splitlines()) <= printed
