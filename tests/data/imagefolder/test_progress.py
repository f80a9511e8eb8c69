from __future__ import annotations

import pytest

from ecd_deploy.data.imagefolder import progress
from ecd_deploy.data.imagefolder.progress import map_files


def test_where_the_output_is_a_file_lines_say_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    assert map_files(lambda number: number * number, 1300, "counting") == [number * number for number in range(1300)]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[0] == "counting: 64 of 1,300"
    assert printed.err.splitlines()[-1] == "counting: 1,300 of 1,300"


def test_what_is_done_at_once_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert map_files(str, 100, "counting") == [str(number) for number in range(100)]
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert map_files(str, 100, "counting") == [str(number) for number in range(100)]
    assert "counting" in capsys.readouterr().err
