"""What the README shows must work as it stands there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ecd_deploy.cli import cli
from ecd_deploy.config import parse_recipe

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


def test_the_transcripts_figures_are_those_that_were_measured() -> None:
    result = json.loads((ROOT / "benchmarks/results/digits_demo.json").read_text())
    run = result["raw"]["runs"][0]
    assert run["seed"] == 0
    assert f"ONNX {run['test_top1']:.2%}" in README
    last = run["metrics"][-1]
    assert f"student {last['validation_top1']:.2%}, teacher {last['teacher_validation_top1']:.2%}" in README
    bound = next(check["bound"] for check in run["gate"]["checks"] if check["name"] == "min_top1")
    assert f"{bound:.4g}" in README
