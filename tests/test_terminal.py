"""Names of others on the terminal: brackets and colons in them are no markup."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.table import Table

from ecd_deploy.cli.ending import console
from tests.commands import run_command
from tests.test_cli import make_folder

NAME = "x[bold] :smile: [/red] [link=a]"


def test_names_of_others_are_shown_as_they_are(tmp_path: Path) -> None:
    classes = ["a|b", "<script>alert(1)<", "[link](x)"]
    make_folder(tmp_path / "images", {"train": classes, "test": classes})
    out = "x[bold] :smile:"
    settings = ["data.source=imagefolder", "data.path=images", "train.epochs=1", "method.name=plain"]
    arguments = [
        "run",
        "digits",
        "--out",
        out,
        "--no-rehearsal",
        *(word for setting in settings for word in ("--set", setting)),
    ]
    ended = run_command(arguments, cwd=tmp_path)
    assert ended.code in {1, 3}, ended.err
    assert f"digits in {out}\n" in ended.out
    assert f"report: {out}/report.html" in ended.out
    for name in ("report.md", "MODEL_CARD.md"):
        text = (tmp_path / out / name).read_text()
        assert "&lt;script&gt;alert(1)&lt;" in text
        assert "<script" not in text
        assert "[link](x)" not in text
    rows = re.findall(r"(?m)^(\|.*\|\n)(\|[-| ]+\|\n)((?:\|.*\|\n)+)", (tmp_path / out / "report.md").read_text())
    assert rows
    for header, _, body in rows:
        columns = {len(re.findall(r"(?<!\\)\|", row)) for row in (header, *body.splitlines())}
        assert len(columns) == 1, header


def test_what_a_student_says_in_an_error_does_not_steer_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text("raise ValueError('\\x1b[2J\\x07\\u202ecleared')\n")
    ended = run_command(["rehearse", "digits", "--set", "student.name=loud:student"], cwd=tmp_path)
    assert ended.code == 2
    assert r"ValueError: \x1b[2J\x07\u202ecleared" in ended.err
    assert ended.err.replace("\n", "").isprintable()


def test_what_is_printed_is_what_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name")
    table.add_row(NAME)
    terminal = console()
    terminal.print(NAME)
    terminal.print(table)
    assert capsys.readouterr().out.count(NAME) == 2
