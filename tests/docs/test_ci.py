"""The workflows of docs/ci.md: each step's script in an environment of its own, with the core alone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ecd_deploy.recipe.input import read_model_config
from tests.commands import Ended
from tests.pipelines.evaluate.colours import INPUT, save_images, write_model
from tests.without import COMMAND, TRAINING, code_without

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/ci.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^ *```(\w+)\n(.*?)^ *```$", PAGE, flags=re.S | re.M)
WORKFLOW, RUN_INPUTS, GITLAB = (text for kind, text in BLOCKS if kind == "yaml")
ACTION = (ROOT / "action.yml").read_text(encoding="utf-8")
OWN = [path.read_text(encoding="utf-8") for path in sorted((ROOT / ".github/workflows").glob("*.yml"))]
LIMITS = "[profile]\nwarmup_seconds = 0.0\nmin_seconds = 0.05\nmin_samples = 44\n[gate]\nmin_top1 = 0.5\n"


def steps(text: str, job: str = "gate") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(text)["jobs"][job]["steps"]
    return found


def gate_script() -> str:
    (found,) = (step["run"] for step in yaml.safe_load(ACTION)["runs"]["steps"] if step["name"] == "Gate")
    return str(found)


def program(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(("#!/bin/bash", *lines)) + "\n")
    path.chmod(0o755)


def shell(script: str, folder: Path, **variables: str) -> Ended:
    """Run a script with these variables alone, and only the programs of the test before the system's."""
    environment = {"PATH": f"{folder / 'programs'}:/usr/bin:/bin", "HOME": str(folder), **variables}
    words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with a model, images and limits; programs stand for the platform, which is not here."""
    save_images(tmp_path / "images")
    write_model(tmp_path / "model.onnx")
    shutil.copy(tmp_path / "model.onnx", tmp_path / "asset.onnx")
    (tmp_path / "gate.toml").write_text(INPUT + LIMITS)
    (tmp_path / "core.py").write_text(code_without(TRAINING, COMMAND))
    python = f'PYTHONPATH="{ROOT}" exec "{sys.executable}" "{tmp_path}/core.py"'
    program(tmp_path / "core", f'{python} "$@"')
    told = f'printf "%s\\n" "$(basename "$0")" "$@" >> "{tmp_path}/told"'
    copied = "while (($#)); do case $1 in --dir) out=$2/model.onnx ;; --output) out=$2 ;; esac; shift; done"
    fetched = 'if [[ ${out:-} ]]; then mkdir -p "$(dirname "$out")"; cp asset.onnx "$out"; fi'
    for name in ("gh", "glab", "curl"):
        program(tmp_path / "programs" / name, told, copied, fetched)
    made = (f'mkdir -p "$3/bin"; cp "{tmp_path}/core" "$3/bin/ecd-deploy"', 'printf "#!/bin/sh\\n" > "$3/bin/pip"')
    program(tmp_path / "programs" / "python", *made, 'chmod 755 "$3/bin/pip"')
    return tmp_path


def told(folder: Path) -> list[str]:
    return (folder / "told").read_text().splitlines()


def inputs(given: dict[str, str], folder: Path) -> dict[str, str]:
    """The variables that the action makes of its inputs."""
    declared = {name: str(entry.get("default", "")) for name, entry in yaml.safe_load(ACTION)["inputs"].items()}
    assert set(given) <= set(declared)
    values = {**declared, **given}
    (step,) = (step for step in yaml.safe_load(ACTION)["runs"]["steps"] if step["name"] == "Gate")
    named = {name: re.fullmatch(r"\$\{\{ inputs\.(\w+) \}\}", text) for name, text in step["env"].items()}
    variables = {name: values[found[1]] for name, found in named.items() if found is not None}
    return {**variables, "COMMAND": str(folder / "core"), "GITHUB_OUTPUT": str(folder / "output")}


def test_the_workflow_for_github_gates_a_model_and_comments(checkout: Path) -> None:
    by_name = {step.get("name"): step for step in steps(WORKFLOW)}
    variables = {"GITHUB_REPOSITORY": "us/model", "GH_TOKEN": "secret", "NUMBER": "7"}
    assert shell(by_name["Fetch the released model"]["run"], checkout, **variables).code == 0
    given = by_name["Gate"]["with"]
    ended = shell(gate_script(), checkout, **inputs(given, checkout))
    # A busy machine leaves latency undecided, and nothing else.
    assert ended.code in {0, 3}, ended.err
    assert (checkout / "output").read_text() in {"verdict=pass\n", "verdict=inconclusive\n"}
    assert (checkout / "gate.md").read_text().startswith("## ecd-deploy gate: ")
    assert "against the baseline's model.onnx, 30 test images: 0 lost" in (checkout / "gate.md").read_text()
    assert (checkout / "gated/report.html").is_file()
    assert shell(by_name["Comment"]["run"], checkout, **variables).code == 0
    comment = ["--body-file", "gate.md", "--edit-last", "--create-if-none"]
    assert told(checkout)[-9:] == ["gh", "pr", "comment", "7", "--repo", "us/model", *comment][-9:]


@pytest.mark.slow
def test_a_run_directory_is_gated_by_the_same_action(checkout: Path, finished_run: tuple[Path, Ended]) -> None:
    for name in ("candidate", "released"):
        shutil.copytree(finished_run[0], checkout / "runs" / name)
    ended = shell(gate_script(), checkout, **inputs(yaml.safe_load(RUN_INPUTS), checkout))
    assert ended.code in {0, 3}, ended.err
    assert "500 test images: 0 lost, 0 gained" in (checkout / "gate.md").read_text()


@pytest.mark.slow
def test_the_jobs_for_gitlab_gate_a_model_and_comment(checkout: Path) -> None:
    jobs = yaml.safe_load(GITLAB)
    variables = {
        "CI_PROJECT_DIR": str(checkout),
        "CI_JOB_TOKEN": "secret",
        "CI_API_V4_URL": "https://gitlab.example/api/v4",
        "CI_PROJECT_ID": "5",
        "CI_PROJECT_URL": "https://gitlab.example/us/model",
        "CI_MERGE_REQUEST_IID": "9",
    }
    ended = shell("\n".join(jobs["gate"]["script"]), checkout, **variables)
    assert ended.code in {0, jobs["gate"]["allow_failure"]["exit_codes"]}, ended.err
    for path in (*jobs["gate"]["artifacts"]["paths"], jobs["gate"]["artifacts"]["reports"]["junit"]):
        assert (checkout / path).exists()
    assert "https://gitlab.example/api/v4/projects/5/releases/permalink/latest/downloads/model.onnx" in told(checkout)
    assert shell("\n".join(jobs["comment"]["script"]), checkout, **variables).code == 0
    assert "## ecd-deploy gate: " in "\n".join(told(checkout)[told(checkout).index("glab") :])


def test_the_limits_of_the_page_are_accepted(tmp_path: Path) -> None:
    (text,) = (text for kind, text in BLOCKS if kind == "toml")
    path = tmp_path / "gate.toml"
    path.write_text(re.sub(r"^ {4}", "", text, flags=re.M))
    (tmp_path / "classes.txt").write_text("a\nb\n")
    assert read_model_config(path, ()).gate.min_top1 == 0.9


@pytest.mark.parametrize("text", [WORKFLOW, ACTION, *OWN])
def test_actions_are_pinned_and_scripts_hold_no_templates(text: str) -> None:
    parsed = yaml.safe_load(text)
    jobs = parsed["jobs"].values() if "jobs" in parsed else [parsed["runs"]]
    for step in (step for job in jobs for step in job["steps"]):
        assert "${{" not in step.get("run", "")
        assert re.search(r"@([0-9a-f]{40}|COMMIT)$", step.get("uses", "@COMMIT")), step["uses"]


def test_every_commit_of_an_action_is_the_same_everywhere() -> None:
    texts = (PAGE, ACTION, *OWN)
    found = re.findall(r"uses: (\S+)@([0-9a-f]{40})", "\n".join(texts))
    assert len(set(found)) == len({action for action, _ in found}) >= 3
