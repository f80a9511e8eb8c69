"""What login shells and answers can be like: each ends in a clear error, and little is kept of any."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ecd_deploy.measure.latency.measurement import Measurement, measure_onnx
from ecd_deploy.pipelines.device.command import _file_name
from ecd_deploy.pipelines.device.remote import DeviceError, measure_on_host
from ecd_deploy.recipe.profile import ProfileConfig
from tests.commands import run_command
from tests.measure.models import convolution_model

QUICK = ProfileConfig(min_seconds=0.05, min_samples=50, warmup_seconds=0.0)
FakeSsh = Callable[[str], tuple[str, ...]]


@pytest.fixture
def fake_ssh(tmp_path: Path) -> FakeSsh:
    """Makes an `ssh` of a shell script, in which "$command" is what the login shell would be given."""

    def make(script: str) -> tuple[str, ...]:
        path = tmp_path / "ssh"
        path.write_text(f"#!/bin/sh\nfor command; do :; done\n{script}\n")
        path.chmod(0o755)
        return (str(path),)

    return make


@pytest.fixture(scope="module")
def honest() -> dict[str, Any]:
    """A result as a device gives it."""
    found = measure_onnx(convolution_model(), QUICK).model_dump(mode="json")
    return {**found}


def measure(ssh: tuple[str, ...], *, python: str = sys.executable) -> Measurement:
    return measure_on_host("device", convolution_model(), QUICK, python=python, ssh=ssh, timeout=60.0)


@pytest.mark.parametrize(
    "greeting",
    [
        "echo welcome; echo 12; echo '{\"a\": 1}'; echo '[]'",
        "printf 'no end of line'",
        "printf '\\033[2J\\377\\n'; echo noise >&2",
    ],
)
def test_a_login_shell_may_print_what_it_likes_first(fake_ssh: FakeSsh, greeting: str) -> None:
    assert len(measure(fake_ssh(f'{greeting}; sh -c "$command"')).latency.samples_ms) >= 50


def test_what_the_login_shell_is_given_is_fit_for_csh(fake_ssh: FakeSsh, tmp_path: Path) -> None:
    with pytest.raises(DeviceError):
        measure(fake_ssh(f'printf %s "$command" > {tmp_path}/given'))
    given = (tmp_path / "given").read_text()
    assert not set("\n!") & set(given)  # both have a meaning for csh, also between quotes
    assert len(given) < 1000


@pytest.mark.parametrize("shell", ["csh", "tcsh", "fish", "zsh", "bash", "dash"])
def test_any_login_shell_will_do(fake_ssh: FakeSsh, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    assert measure(fake_ssh(f'exec {shell} -c "$command"')).macs > 0


def test_a_python_in_the_home_directory_is_found_there(fake_ssh: FakeSsh, tmp_path: Path) -> None:
    interpreter = tmp_path / "my tools" / "python"
    interpreter.parent.mkdir()
    interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    ssh = fake_ssh(f'HOME={tmp_path} sh -c "$command"')
    assert measure(ssh, python="~/my tools/python").macs > 0
    with pytest.raises(DeviceError, match="it has no ~/absent"):
        measure(ssh, python="~/absent")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo '{\"a\": 1}'", "it did not answer: ssh ended with 0"),
        ('echo \'{"state": {}}\'; echo \'{"state": "\\u001b[2J"}\'', "it did not answer"),
        ("echo '{\"result\": 1}'", "cannot be read"),
        ('echo \'{"result": {"a": 1}}\'', r"cannot be read:\n(  .*\n)*  schema_version: is missing"),
        ("head -c 200000 /dev/zero | tr '\\0' '['; echo", "nested too deeply"),
        ("printf '{\"result\": '; head -c 50000 /dev/zero | tr '\\0' '['; echo", "nested too deeply"),
        ("exec yes ' '", "writes without end"),
        ("exec tr '\\0' ' ' < /dev/zero", "writes without end"),
        ('while :; do echo \'{"state": "sending"}\'; echo \'{"state": "measuring"}\'; done', "writes without end"),
        ('printf "%s\\n" \'{"error": "\\u001b[2Jits disk \\n is full"}\'', r"device: \[2Jits disk   is full$"),
        ("printf '\\033]0;title\\007broken\\n' >&2; exit 3", r"did not answer: \]0;title broken$"),
        ("yes error >&2 & sleep 0.3; kill $!; exit 255", "ssh cannot connect: error"),
        ("head -c 1000000 /dev/zero | tr '\\0' e >&2; exit 255", r"ssh cannot connect: e{300}\.\.\.$"),
        ("printf '{\"result\": %s}\\n' $(head -c 6000 /dev/zero | tr '\\0' 9)", "did not answer"),
    ],
)
def test_an_answer_that_is_none_is_named(fake_ssh: FakeSsh, script: str, message: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DeviceError, match=message) as caught:
        measure(fake_ssh(script))
    assert caught.value.exit_code == 4
    assert str(caught.value).replace("\n", "").isprintable()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kB


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"percentiles": []}, "its percentiles are not those of its samples"),
        ({"samples_ms": [1.0] * 1000}, "its percentiles are not those of its samples"),
        ({"samples_ms": []}, "latency.samples_ms"),
        ({"samples_ms": [-1.0]}, "latency.samples_ms"),
        ({"load_ms": -1.0}, "latency.load_ms"),
        ({"p50_range_ms": [0.0, 1e9]}, "its p50 lies outside of its samples"),
        ({"contended": True, "reasons": []}, "contradicts itself"),
        ({"contended": True, "reasons": ["\x1b[2J"]}, "latency.reasons"),
        ({"threads": 64}, "threads 64, asked were 1"),
        ({"batch_size": 8}, "batch size 8, asked were 1"),
        ({"\x1b[2J": 1}, "cannot be read"),
        ({"cpu_over_wall": float("nan")}, "latency.cpu_over_wall"),
    ],
)
def test_a_result_that_contradicts_itself_is_refused(
    fake_ssh: FakeSsh, tmp_path: Path, honest: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    document = {**honest, "latency": {**honest["latency"], "contended": False, "reasons": [], **change}}
    (tmp_path / "answer").write_text(json.dumps({"result": document}) + "\n")
    with pytest.raises(DeviceError, match=message) as caught:
        measure(fake_ssh(f"cat {tmp_path}/answer"))
    assert str(caught.value).replace("\n", "").isprintable()


def test_bounds_are_computed_here(fake_ssh: FakeSsh, tmp_path: Path, honest: dict[str, Any]) -> None:
    latency = {**honest["latency"], "contended": False, "reasons": []}
    lower = [{**entry, "upper_bound_ms": 0.0} for entry in latency["percentiles"]]
    answer = json.dumps({"result": {**honest, "latency": {**latency, "percentiles": lower}}})
    (tmp_path / "answer").write_text(answer + "\n")
    found = measure(fake_ssh(f"cat {tmp_path}/answer"))
    assert found.latency.at(0.9).upper_bound_ms == Measurement.model_validate(honest).latency.at(0.9).upper_bound_ms


def test_without_ssh_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.onnx").write_bytes(convolution_model())
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = run_command(["profile", "model.onnx", "--host", "device"], cwd=tmp_path)
    assert ended.code == 4
    assert ended.err == "Error: device: there is no ssh on this machine; install OpenSSH's client\n"


def test_a_signal_does_not_wait_for_the_devices(tmp_path: Path, fake_ssh: FakeSsh) -> None:
    (tmp_path / "model.onnx").write_bytes(convolution_model())
    folder = Path(fake_ssh("kill -TERM $PPID; exec sleep 60")[0]).parent
    program = "from ecd_deploy.cli import main; main(['profile', 'model.onnx', '--host', 'a', '--host', 'b'])"
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=40,
        check=False,
    )
    assert (done.returncode, done.stderr) == (143, "Stopped: SIGTERM\n")


def test_two_hosts_never_share_a_file() -> None:
    hosts = ["pi@device", "a:b", "a_b", "a/b", ".a", "a", "..", ""]
    names = [_file_name(host) for host in hosts]
    assert len(set(names)) == len(hosts)
    assert names[0] == "pi@device"
    assert not any("/" in name or name.startswith(".") for name in names)
