"""Against a real sshd on the loopback interface; skipped where there is none."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecd_deploy.errors import EcdDeployError
from ecd_deploy.measure.latency.measurement import Measurement
from ecd_deploy.pipelines.device.remote import DeviceError, measure_on_host, measure_on_hosts
from ecd_deploy.recipe.profile import ProfileConfig
from tests.measure.models import convolution_model
from tests.pipelines.sshd import MISSING, Server, start_server

pytestmark = pytest.mark.skipif(MISSING, reason="no OpenSSH server and client")
QUICK = ProfileConfig(min_seconds=0.05, min_samples=50, warmup_seconds=0.0)
LONG = ProfileConfig(min_seconds=60.0, warmup_seconds=0.0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    temporary = tmp_path / "remote"
    temporary.mkdir()
    found, process = start_server(tmp_path, temporary)
    yield found
    process.terminate()
    process.wait()


def measure(server: Server, config: ProfileConfig = QUICK, **options: object) -> Measurement:
    settings: dict[str, object] = {"python": sys.executable, "ssh": server.ssh, **options}
    return measure_on_host(f"{server.user}@127.0.0.1", convolution_model(), config, **settings)  # type: ignore[arg-type]


def test_a_device_measures_and_is_left_clean(server: Server) -> None:
    states: list[str] = []
    found = measure(server, report=lambda _, state: states.append(state))
    assert len(found.latency.samples_ms) >= 50
    assert found.macs == 8 * 8 * 4 * 18 + 20
    assert states == ["connecting", "sending", "measuring", "done"]
    assert server.left() == []


def test_a_wrong_architecture_is_named(server: Server) -> None:
    with pytest.raises(DeviceError, match=r"its architecture is .* and sparc64 is expected"):
        measure(server, machine="sparc64")
    assert server.left() == []


def test_a_missing_package_is_named(server: Server, tmp_path: Path) -> None:
    python = tmp_path / "bare"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')
    python.chmod(0o755)
    with pytest.raises(DeviceError, match="has no numpy"):
        measure(server, python=str(python))


def test_a_missing_python_is_named(server: Server) -> None:
    with pytest.raises(DeviceError, match="it has no /no/python"):
        measure(server, python="/no/python")


def test_a_timeout_leaves_nothing_behind(server: Server) -> None:
    with pytest.raises(DeviceError, match="did not finish within 2 s"):
        measure(server, LONG, timeout=2.0)
    assert server.wait_until_clean()


def test_a_dropped_connection_leaves_nothing_behind(server: Server) -> None:
    measuring = threading.Event()

    def report(_: str, state: str) -> None:
        if state == "measuring":
            measuring.set()

    def drop() -> None:
        measuring.wait(60)
        assert server.left()
        for process in clients():
            os.kill(process, signal.SIGKILL)

    def clients() -> list[int]:
        needle = server.ssh[server.ssh.index("-i") + 1].encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0] == b"ssh" and needle in words:
                found.append(int(path.parent.name))
        return found

    thread = threading.Thread(target=drop)
    thread.start()
    with pytest.raises(DeviceError, match="the connection was lost while measuring"):
        measure(server, LONG, report=report)
    thread.join()
    assert server.wait_until_clean()


def test_a_refused_connection_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="ssh cannot connect"):
        measure(Server(("ssh", "-F", "none", "-p", "1", "-o", "BatchMode=yes"), tmp_path, "nobody"))


def test_a_full_disk_is_named_and_cleared(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(small)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small file system")
    server, process = start_server(tmp_path, small)
    try:
        with pytest.raises(DeviceError, match="its disk is full"):
            measure(server)
        assert server.left() == []
    finally:
        process.terminate()
        process.wait()
        subprocess.run(["umount", str(small)], check=True)


def test_a_model_that_does_not_run_is_named(server: Server) -> None:
    with pytest.raises(DeviceError, match="cannot run the model"):
        measure_on_host(f"{server.user}@127.0.0.1", b"no model", QUICK, python=sys.executable, ssh=server.ssh)
    assert server.left() == []


def test_one_device_that_fails_keeps_no_other_from_its_result(server: Server) -> None:
    def attempt(host: str) -> Measurement:
        return measure(server, machine="sparc64" if host == "b" else None)

    results = measure_on_hosts(["a", "b"], attempt)
    assert isinstance(results["a"], Measurement)
    assert isinstance(results["b"], EcdDeployError)
