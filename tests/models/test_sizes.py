"""The table behind `ecd-deploy models` against the networks themselves."""

from __future__ import annotations

from benchmarks.student_sizes import TABLE, sizes_toml
from ecd_deploy.models import build_student, student_names
from ecd_deploy.models.sizes import CLASSES, student_sizes


def test_the_committed_table_is_what_its_command_writes() -> None:
    assert TABLE.read_text(encoding="utf-8") == sizes_toml(), "run: python -m benchmarks.student_sizes"


def test_every_built_in_student_is_listed_with_its_parameters() -> None:
    sizes = {entry.name: entry.parameters for entry in student_sizes()}
    assert tuple(sizes) == student_names()
    network = build_student("resnet8", num_classes=CLASSES)
    assert sizes["resnet8"] == sum(parameter.numel() for parameter in network.parameters())
