"""The sizes of the built-in students, from a table: to list them takes no torch.

`python -m benchmarks.student_sizes` writes the table; a test compares it with the networks.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files

SIZES_NAME = "sizes.toml"
CLASSES = 100
"""The width of the logits that the sizes are given for; images have three channels."""


@dataclass(frozen=True)
class StudentSize:
    """The parameters of one built-in student, at `CLASSES` classes."""

    name: str
    parameters: int


def student_sizes() -> tuple[StudentSize, ...]:
    """The built-in students in the order of `student_names`."""
    table = tomllib.loads((files("ecd_deploy.models") / SIZES_NAME).read_text(encoding="utf-8"))
    return tuple(StudentSize(name, parameters) for name, parameters in table.items())
