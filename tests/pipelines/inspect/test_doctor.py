from __future__ import annotations

import io

import pytest
from rich.console import Console

from ecd_deploy.errors import ArtefactError
from ecd_deploy.pipelines.inspect.doctor import diagnose
from ecd_deploy.pipelines.record import environment


def test_a_missing_package_is_listed_and_no_runtime_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PACKAGES", (*environment.PACKAGES, "a-package-that-is-not-installed"))
    console = Console(file=io.StringIO(), width=120)
    with pytest.raises(ArtefactError, match="missing packages: a-package-that-is-not-installed; install"):
        diagnose(console)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert "missing" in printed
    assert "torch device" not in printed
