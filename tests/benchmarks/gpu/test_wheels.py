from __future__ import annotations

import re
import tomllib
from pathlib import Path

from benchmarks.gpu.wheels import PRESENT, WHEELS

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-")


def test_every_dependency_travels_or_is_on_the_machine() -> None:
    needed = {_name(line) for line in tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]}
    assert needed <= {_name(line) for line in WHEELS} | set(PRESENT)
    assert set(PRESENT) <= needed
