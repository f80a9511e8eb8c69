from __future__ import annotations

import re
import tomllib
from pathlib import Path

from benchmarks.gpu.wheels import PRESENT, WHEELS

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-")


def test_every_dependency_travels_or_is_on_the_machine() -> None:
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    needed = {_name(line) for line in (*project["dependencies"], *project["optional-dependencies"]["train"])}
    assert needed <= {_name(line) for line in WHEELS} | set(PRESENT)
    assert set(PRESENT) <= needed


def test_what_travels_has_the_versions_that_are_tested() -> None:
    pinned = (PYPROJECT.parent / "constraints-gpu.txt").read_text().splitlines()
    tested = {_name(line): line.partition("==")[2] for line in pinned if "==" in line}
    carried = {_name(line): line.partition("==")[2] for line in WHEELS}
    common = carried.keys() & tested.keys()
    assert {"pydantic", "tomli-w"} <= common
    assert {name: carried[name] for name in common} == {name: tested[name] for name in common}
