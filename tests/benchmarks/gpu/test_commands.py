from __future__ import annotations

import importlib.metadata
import time
from pathlib import Path

from benchmarks.gpu.commands import DIRECT, Program, describe_checkout, run_command


def test_a_checkout_that_is_not_installed_has_a_version(tmp_path: Path) -> None:
    describe_checkout(tmp_path)
    (found,) = importlib.metadata.distributions(path=[str(tmp_path)])
    assert (found.name, found.version) == ("ecd-deploy", importlib.metadata.version("ecd-deploy"))
    # -S: no site-packages, where the package is installed
    ended = run_command(
        Program(("-S", "-c", "import importlib.metadata as m; print(m.version('ecd-deploy'))")),
        (),
        tmp_path,
        time.monotonic() + 60,
    )
    assert ended.code == 0, ended.tail


def test_a_command_whose_time_is_up_is_ended_with_its_children(tmp_path: Path) -> None:
    parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', CHILD])"
    child = "open('started', 'w').close(); import time; time.sleep(3); open('late', 'w').close()"
    ended = run_command(
        Program(("-c", f"CHILD = {child!r}; {parent}")),
        (),
        tmp_path,
        time.monotonic() + 60,
        kill_when=(tmp_path / "started").exists,
    )
    assert ended.code == -9
    time.sleep(3.5)
    assert not (tmp_path / "late").exists()


def test_a_command_that_fails_keeps_what_it_wrote(tmp_path: Path) -> None:
    ended = run_command(DIRECT, ("train", "nowhere"), tmp_path, time.monotonic() + 120)
    assert ended.code == 2
    assert "nowhere" in ended.tail
    late = run_command(DIRECT, ("--version",), tmp_path, time.monotonic())
    assert late.code is None
