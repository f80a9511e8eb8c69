from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


SHELL = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"]


def script(step: str) -> str:
    """The shell of a step of the action."""
    text = (ROOT / "action.yml").read_text()
    body = text[text.index(f"    - name: {step}\n") :]
    lines = body[body.index("run: |\n") + len("run: |\n") :].splitlines()
    return "\n".join(line.removeprefix(" " * 8) for line in takewhile(lambda line: line.startswith(" " * 8), lines))


def shell(step: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a step's script with these variables alone."""
    given = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run([*SHELL, script(step)], env=given, capture_output=True, text=True, check=False)


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
        "COMMAND": str(command),
        "RUN": "runs/a b",
        "DATA": "",
        "BASELINE": "runs/old",
        "LIMITS": "",
        "OUT": "gated",
        "MARKDOWN": "",
        "INCONCLUSIVE": inconclusive,
        "GITHUB_OUTPUT": str(tmp_path / "output"),
    }
    done = shell("Gate", environment)
    assert done.returncode == expected, done.stderr
    assert (tmp_path / "output").read_text() == f"verdict={verdict}\n"
    assert (tmp_path / "arguments").read_text().splitlines() == ["gate", "runs/a b", "--baseline", "runs/old"]


def test_the_action_asks_for_what_its_script_reads() -> None:
    text = (ROOT / "action.yml").read_text()
    for name in ("run", "data", "baseline", "config", "out", "markdown", "inconclusive", "python"):
        assert re.search(rf"^  {name}:$", text, re.MULTILINE)
        assert f"${{{{ inputs.{name} }}}}" in text


def test_the_environment_is_known_by_python_and_by_every_file_that_is_installed(tmp_path: Path) -> None:
    action = tmp_path / "action"
    for folder in ("ecd_deploy", "exporters", "pipelines"):
        (action / folder).mkdir(parents=True)
        (action / folder / "module.py").write_text(folder)
    for name in ("pyproject.toml", "constraints.txt"):
        (action / name).write_text(name)

    def named() -> dict[str, str]:
        output = tmp_path / "output"
        output.write_text("")
        variables = {"RUNNER_TEMP": str(tmp_path), "RUNNER_OS": "Linux", "GITHUB_OUTPUT": str(output)}
        done = shell("Name the environment", {**variables, "PYTHON": sys.executable, "GITHUB_ACTION_PATH": str(action)})
        assert done.returncode == 0, done.stderr
        return dict(line.split("=", 1) for line in output.read_text().splitlines())

    before = named()
    assert before == named()
    assert before["path"] == f"{tmp_path}/ecd-deploy"
    assert f"-{sys.version_info.major}.{sys.version_info.minor}." in before["key"]
    (action / "pipelines" / "module.py").write_text("changed")
    assert named()["key"] != before["key"]


def test_the_gate_is_installed_beside_the_jobs_own_packages(tmp_path: Path) -> None:
    python = tmp_path / "python"
    lines = ("#!/bin/sh", f'echo "$0 $@" >> {tmp_path}/calls', '[ "$2" = pip ] || install -D "$0" "$3/bin/python"')
    python.write_text("\n".join(lines) + "\n")
    python.chmod(0o755)
    folder = tmp_path / "environment"
    done = shell("Install", {"PYTHON": str(python), "FOLDER": str(folder), "GITHUB_ACTION_PATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "calls").read_text().splitlines() == [
        f"{python} -m venv {folder}",
        f"{folder}/bin/python -m pip install --quiet --constraint {ROOT}/constraints.txt {ROOT}",
    ]
