from __future__ import annotations

from benchmarks.start_up import COMMANDS
from ecd_deploy.cli import cli


def test_every_command_is_measured() -> None:
    assert {command.words[0] for command in COMMANDS} == {"--version", *cli.commands}
