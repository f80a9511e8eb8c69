"""The core as a user installs it: the wheel in an environment of its own, without the extra [train]."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import Ended

ROOT = Path(__file__).parents[1]
LARGEST_MB = 350
"""In 1e6 bytes, without bytecode, pip and setuptools."""

_SIZE = """
import importlib.metadata as metadata, json
sizes = {}
for package in metadata.distributions():
    files = [file.locate() for file in package.files or () if file.suffix != ".pyc"]
    sizes[package.metadata["Name"].lower()] = sum(file.stat().st_size for file in files if file.is_file())
print(json.dumps(sizes))
"""


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_gates_in_a_bare_environment(finished_run: tuple[Path, Ended], tmp_path: Path) -> None:
    source, python = tmp_path / "source", tmp_path / "core" / "bin" / "python"
    for folder in ("ecd_deploy", "exporters", "pipelines"):
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    assert run(sys.executable, "-m", "build", "--wheel", "--no-isolation", source, cwd=tmp_path).returncode == 0
    (wheel,) = (source / "dist").glob("*.whl")
    assert run(sys.executable, "-m", "venv", tmp_path / "core", cwd=tmp_path).returncode == 0
    install: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-compile",
        "--constraint",
        ROOT / "constraints.txt",
    ]
    installed = run(*install, wheel, cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr
    shutil.copytree(finished_run[0], tmp_path / "run")
    for words in (["gate", "run"], ["verify", "run"]):
        ended = run(python, "-I", "-m", "ecd_deploy", *words, cwd=tmp_path)
        assert ended.returncode in {0, 3}, ended.stderr
    refused = run(python, "-I", "-m", "ecd_deploy", "run", "digits", cwd=tmp_path)
    assert (refused.returncode, refused.stderr) == (
        2,
        "Error: torch is not installed: pip install 'ecd-deploy[train]'\n",
    )
    sizes: dict[str, int] = json.loads(run(python, "-I", "-c", _SIZE, cwd=tmp_path).stdout)
    assert {"ecd-deploy", "onnxruntime", "numpy"} <= sizes.keys()
    assert not {"torch", "torchvision", "accelerate", "matplotlib", "onnxscript", "scikit-learn"} & sizes.keys()
    size = sum(bytes_ for name, bytes_ in sizes.items() if name not in {"pip", "setuptools"}) / 1e6
    assert size <= LARGEST_MB, f"{size:.0f} MB without bytecode: {sizes}"
