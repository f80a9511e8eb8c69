"""A short version of `make corruption`."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.corruption import corrupt
from tests.commands import Ended


def test_corrupted_files_are_refused_before_they_are_loaded(finished_run: tuple[Path, Ended], tmp_path: Path) -> None:
    root = Path(shutil.copytree(finished_run[0], tmp_path / "run"))
    tally = corrupt(root, 60, seed=1)
    assert tally["loaded"] == []
    assert tally["refused"] == 60
    assert set(tally["errors"]) == {"DigestError", "ArtefactError"}
    assert tally["by_file"]["MANIFEST.json"] >= 6
    assert len(tally["by_file"]) > 5
    assert tally["slowest_seconds"] < 10
