"""Counts the parameters of the built-in students, for `ecd-deploy models`: `python -m benchmarks.student_sizes`."""

from __future__ import annotations

from pathlib import Path

import torch

import ecd_deploy.models
from ecd_deploy.files import write_atomic
from ecd_deploy.models import build_student, student_names
from ecd_deploy.models.sizes import CLASSES, SIZES_NAME

TABLE = Path(ecd_deploy.models.__file__).parent / SIZES_NAME


def sizes_toml() -> str:
    """The table as it is committed: the name of each built-in student and its parameters, without allocating them."""
    lines = [f"# Parameters at {CLASSES} classes; written by `python -m benchmarks.student_sizes`."]
    for name in student_names():
        with torch.device("meta"):
            student = build_student(name, num_classes=CLASSES)
        lines.append(f"{name} = {sum(parameter.numel() for parameter in student.parameters())}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_atomic(TABLE, sizes_toml().encode())
