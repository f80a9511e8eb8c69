from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def script() -> str:
    """The shell of the action's last step."""
    text = (ROOT / "action.yml").read_text()
    lines = text[text.rindex("run: |\n") + len("run: |\n") :].splitlines()
    return "\n".join(line.removeprefix(" " * 8) for line in lines)


@pytest.mark.parametrize(
    ("code", "inconclusive", "expected", "verdict"),
    [
        (0, "fail", 0, "pass"),
        (1, "pass", 1, "fail"),
        (2, "pass", 2, "error"),
        (3, "fail", 3, "inconclusive"),
        (3, "pass", 0, "inconclusive"),
        (4, "pass", 4, "error"),
    ],
)
def test_the_action_hands_on_arguments_and_exit_code(
    tmp_path: Path, code: int, inconclusive: str, expected: int, verdict: str
) -> None:
    command = tmp_path / "ecd-deploy"
    command.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\nexit {code}\n')
    command.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "RUN": "runs/a b",
        "BASELINE": "runs/old",
        "LIMITS": "",
        "INCONCLUSIVE": inconclusive,
        "GITHUB_OUTPUT": str(tmp_path / "output"),
    }
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script()]
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == expected, done.stderr
    assert (tmp_path / "output").read_text() == f"verdict={verdict}\n"
    assert (tmp_path / "arguments").read_text().splitlines() == ["gate", "runs/a b", "--baseline", "runs/old"]


def test_the_action_asks_for_what_its_script_reads() -> None:
    text = (ROOT / "action.yml").read_text()
    for name in ("run", "baseline", "config", "inconclusive"):
        assert re.search(rf"^  {name}:$", text, re.MULTILINE)
        assert f"${{{{ inputs.{name} }}}}" in text
