"""A signal ends any command with its exit code, and nothing takes it for a fault of the student."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import run_command

ROOT = Path(__file__).parents[1]
SCRIPTS = (
    "measure/device/runner/command.py",
    "measure/device/bundle_check.py",
    "measure/predictors/untrusted_runner.py",
)
"""Run by themselves, without this package; what ends them is their answer."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of the student that signals come to, trained and no more."""
    folder = tmp_path_factory.mktemp("stopping")
    recipe = ["--recipe", "digits", "--set", "student.name=stopping_student:stopping_student"]
    recipe += ["--set", "train.epochs=1", "--set", 'export.formats=["onnx"]']
    ended = run_command(["train", "run", "--no-rehearsal", *recipe], cwd=folder)
    assert ended.code == 0, ended.err
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in (folder / "run").rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("command", ["split", "export", "verify"])
def test_a_signal_during_any_forward_ends_the_command_and_leaves_no_half(trained: Path, command: str) -> None:
    """Copies stop at some forward; then the run itself goes on to the next command."""
    before = contents(trained)
    (trained / "forwards").write_bytes(b"")
    whole = run_command([command, "run"], cwd=trained)
    assert whole.code == 0, whole.err
    forwards, after = (trained / "forwards").stat().st_size, contents(trained)
    (trained / "forwards").unlink()
    assert forwards or command == "verify"
    for number in sorted({forwards // 2, forwards} - {0}):
        folder = trained.with_name(f"{trained.name}-{command}-{number}")
        for name, data in before.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        (folder / "forwards").write_bytes(b"")
        (folder / "stop_at").write_text(str(number))
        stopped = run_command([command, "run"], cwd=folder)
        assert (stopped.code, stopped.err) == (143, "Stopped: SIGTERM\n"), f"forward {number} of {forwards}"
        assert run_command(["verify", "run"], cwd=folder).code == 0
        for name, data in contents(folder).items():
            assert name.endswith("MANIFEST.json") or data in (before.get(name), after.get(name)), f"{name}: {number}"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize(
    "place",
    [
        "try: stop()\n    except Exception: pass",
        "class Cleared:\n        def __del__(self): stop()\n    Cleared()",  # Python drops what is raised there
    ],
)
def test_what_a_signal_raises_is_not_swallowed(number: signal.Signals, code: int, place: str) -> None:
    program = f"""
import signal, time
from ecd_deploy.cli import cli, main

def stop():
    signal.raise_signal({int(number)})

@cli.command()
def wait():
    {place}
    time.sleep(30)

signal.signal(signal.SIGINT, signal.default_int_handler)
main(["wait"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr.strip() == f"Stopped: {number.name}"


@pytest.mark.parametrize("fault", ["MemoryError()", "OSError(28, os.strerror(28), '/full')"])
def test_a_fault_of_the_machine_is_no_fault_of_the_program(fault: str) -> None:
    program = f"""
import os
from ecd_deploy.cli import cli, main
@cli.command()
def fail():
    try: raise {fault}
    except Exception as error: raise RuntimeError("of a library") from error
main(["fail"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert done.stderr in {"Error: the memory is used up\n", f"Error: {os.strerror(28)}: /full\n"}


def broad_handlers() -> Iterator[tuple[str, ast.ExceptHandler]]:
    for folder in ("ecd_deploy", "exporters", "pipelines"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name.endswith(SCRIPTS) or name.startswith(("ecd_deploy/pipelines/", "ecd_deploy/exporters/")):
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ExceptHandler) and (
                    node.type is None
                    or any(
                        isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"}
                        for kind in ast.walk(node.type)
                    )
                ):
                    yield f"{name}:{node.lineno}", node


def test_whoever_catches_all_exceptions_lets_faults_of_the_machine_pass() -> None:
    found = list(broad_handlers())
    assert len(found) > 20
    for place, handler in found:
        text = ast.unparse(handler)
        raises_again = any(isinstance(node, ast.Raise) and node.exc is None for node in ast.walk(handler))
        handed_on = "faults.append(error)" in text  # by a thread, to the one that waits for it and raises it
        assert raises_again or handed_on or "machine_fault(error)" in text, place
