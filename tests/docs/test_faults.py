"""Each row of the tables in docs/faults.md and docs/proof.md names a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    line
    for name in ("faults.md", "proof.md")
    for line in (ROOT / "docs" / name).read_text(encoding="utf-8").splitlines()
    if line.startswith("|") and not re.match(r"\|[-|]+$|\| (fault|claim) \|", line)
]


def test_there_are_rows() -> None:
    assert len(ROWS) > 20


@pytest.mark.parametrize("row", ROWS, ids=[row.split("|")[1].strip()[:60] for row in ROWS])
def test_the_test_that_a_row_names_exists(row: str) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row.split("|")[-2])
    assert named, f"no test is named: {row}"
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{path} has no {name}"
