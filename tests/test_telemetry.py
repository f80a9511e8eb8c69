"""onnxruntime's telemetry is off wherever this project imports it: nothing in the home directory, no connections."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from ecd_deploy.measure.device.archive import RUNNER_NAME, runner_archive
from ecd_deploy.pipelines.run import run_bundle
from tests.commands import Ended
from tests.measure.models import convolution_model

ROOT = Path(__file__).parents[1]
QUICK = ["--min-seconds", "0.05", "--min-samples", "20", "--warmup-seconds", "0"]
OPENS = "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1])"


def run_at_home(command: list[str | Path], home: Path) -> None:
    """Run it with a fresh home directory and without CI's variable, which would silence the telemetry by itself."""
    home.mkdir()
    silent = {"CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in silent}
    environment |= {"HOME": str(home), "TMPDIR": str(home)}
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode in {0, 3}, done.stderr  # 3: a busy machine


def left(home: Path) -> list[str]:
    return sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def commands(finished_run: tuple[Path, Ended], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str | Path]]:
    folder = tmp_path_factory.mktemp("programs")
    model, runner, images = folder / "model.onnx", folder / RUNNER_NAME, folder / "images.npy"
    model.write_bytes(convolution_model())
    runner.write_bytes(runner_archive())
    np.save(images, np.zeros((2, 1, 8, 8), dtype=np.uint8))
    run_bundle(finished_run[0], format_name="onnx", output=folder / "bundle.tar.gz")
    with tarfile.open(folder / "bundle.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    (script,) = folder.glob("*/run.py")
    imported = "import ecd_deploy; " + OPENS
    return {
        "onnxruntime": [sys.executable, "-c", OPENS, model],
        "profile": [sys.executable, "-m", "ecd_deploy", "profile", model],
        "runner": [sys.executable, "-I", runner, model, *QUICK],
        "bundle": [sys.executable, "-I", script],
        "run_student.py": [
            *(sys.executable, "-I", ROOT / "docs" / "run_student.py"),
            *(finished_run[0] / "exports" / "student.onnx", images),
        ],
        "package": [sys.executable, "-c", imported, model],
    }


@pytest.mark.parametrize("name", ["profile", "runner", "bundle", "run_student.py", "package"])
def test_nothing_is_left_in_the_home_directory(
    commands: dict[str, list[str | Path]], tmp_path: Path, name: str
) -> None:
    run_at_home(commands[name], tmp_path / "home")
    assert left(tmp_path / "home") == []


def test_without_the_variable_the_telemetry_would_be_seen_here(
    commands: dict[str, list[str | Path]], tmp_path: Path
) -> None:
    run_at_home(commands["onnxruntime"], tmp_path / "home")
    if not left(tmp_path / "home"):
        pytest.skip("this onnxruntime has no telemetry")
    assert any("onnxruntime" in name for name in left(tmp_path / "home"))


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
@pytest.mark.parametrize("name", ["runner", "run_student.py", "package"])
def test_no_socket_is_opened(commands: dict[str, list[str | Path]], tmp_path: Path, name: str) -> None:
    trace = tmp_path / "trace"
    run_at_home(["strace", "-f", "-e", "trace=socket,connect", "-o", trace, *commands[name]], tmp_path / "home")
    assert "exited with" in trace.read_text()
    assert re.findall(r".*AF_INET.*", trace.read_text()) == []


def test_all_images_switch_it_off() -> None:
    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    (base,) = [stage for stage in stages if re.search(r"^ENV .*ORT_DISABLE_TELEMETRY=1", stage, re.MULTILINE)]
    assert base.startswith("${BASE} AS python\n")
    running = [stage for stage in stages if "ENTRYPOINT" in stage]
    assert len(running) == 3
    assert all(stage.startswith("python AS ") for stage in running)
