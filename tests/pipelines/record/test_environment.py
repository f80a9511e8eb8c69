from __future__ import annotations

from pathlib import Path

import pytest

from ecd_deploy.pipelines.record import environment
from ecd_deploy.pipelines.record.environment import describe_environment

VERSION = """NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023
GCC version:  gcc version 11.4.0
"""
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs-builder@U16)\n"


@pytest.mark.parametrize(
    ("text", "version"), [(VERSION, "535.104.05"), (OPEN, "570.86.15"), ("something else\n", None), (None, None)]
)
def test_the_driver_is_named_where_there_is_one(
    text: str | None, version: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "version"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(environment, "_DRIVER", file)
    assert describe_environment().driver == version
