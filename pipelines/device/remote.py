"""Measuring on real devices over the system's OpenSSH, so that its keys, jump hosts and settings work."""

from __future__ import annotations

import json
import shlex
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import IO, Any

from ecd_deploy.errors import ArtefactError, EcdDeployError
from ecd_deploy.files import sha256_bytes
from ecd_deploy.measure.latency import RUNNER_NAME, Measurement, parse_measurement, runner_arguments, runner_source
from ecd_deploy.recipe.profile import ProfileConfig

Report = Callable[[str, str], None]
"""Called with a host and what happens there."""

_PACKAGES = ("numpy", "onnxruntime")
_SSH = (
    "ssh",
    "-T",
    "-o",
    "BatchMode=yes",
    "-o",
    "ConnectTimeout=15",
    "-o",
    "ServerAliveInterval=5",
    "-o",
    "ServerAliveCountMax=3",
)
_CONNECTION_FAILED = 255
_NOT_FOUND = 127


class DeviceError(ArtefactError):
    """A device could not be reached or used, or broke off; nothing of ours is left on it."""


def measure_on_host(
    host: str,
    model: bytes,
    config: ProfileConfig,
    *,
    python: str = "python3",
    machine: str | None = None,
    timeout: float = 600.0,
    ssh: Sequence[str] = _SSH,
    report: Report | None = None,
) -> Measurement:
    """Measure a model on a device.

    Args:
        host: as ssh takes it, for example `user@device`.
        model: the ONNX file.
        config: threads, batch size and how long to measure.
        python: the device's Python that has numpy and onnxruntime.
        machine: `uname -m` that is expected; None for any.
        timeout: seconds on the device.
        ssh: the command before the host.
        report: called with the host and each new state.

    Raises:
        DeviceError: with the cause; the device is left as it was.
    """
    payload = {RUNNER_NAME: runner_source(), "model.onnx": model}
    header = {
        "files": [
            {"name": name, "bytes": len(content), "sha256": sha256_bytes(content)} for name, content in payload.items()
        ],
        "arguments": runner_arguments(config),
        "machine": machine,
        "packages": list(_PACKAGES),
        "timeout": timeout,
    }
    say = report or (lambda *_: None)
    bootstrap = (files("ecd_deploy.measure.device") / "remote_bootstrap.py").read_text(encoding="utf-8")
    command = [*ssh, "--", host, f"{shlex.quote(python)} -c {shlex.quote(bootstrap)}"]
    say(host, "connecting")
    message = (json.dumps(header) + "\n").encode() + b"".join(payload.values())
    result, code, errors = _converse(command, message, timeout + 60.0, lambda state: say(host, state))
    if "result" in result:
        say(host, "done")
        return parse_measurement(json.dumps(result["result"]))
    say(host, "failed")
    raise DeviceError(f"{host}: {_cause(result, code, errors, python)}")


def measure_on_hosts(
    hosts: Sequence[str], measure: Callable[[str], Measurement]
) -> dict[str, Measurement | EcdDeployError]:
    """Measure on several devices at once; a device that fails keeps no other from its result."""

    def attempt(host: str) -> Measurement | EcdDeployError:
        try:
            return measure(host)
        except EcdDeployError as error:
            return error

    with ThreadPoolExecutor(max_workers=len(hosts)) as pool:
        return dict(zip(hosts, pool.map(attempt, hosts), strict=True))


def _converse(
    command: list[str], message: bytes, timeout: float, report: Callable[[str], None]
) -> tuple[dict[str, Any], int, str]:
    """Send, then read until the result; the device stops as soon as its standard input ends."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        if child.stdin is None or child.stdout is None or child.stderr is None:
            raise RuntimeError("ssh was started without pipes")
        errors: list[bytes] = []
        threads = [
            threading.Thread(target=_send, args=(child.stdin, message), daemon=True),
            threading.Thread(target=_collect, args=(child.stderr, errors), daemon=True),
        ]
        alarm = threading.Timer(timeout, child.kill)
        result: dict[str, Any] = {}
        try:
            alarm.start()
            for thread in threads:
                thread.start()
            for line in child.stdout:
                result = _parse(line) or result
                if "state" in result:
                    report(str(result["state"]))
                else:
                    break
        finally:
            alarm.cancel()
            threads[0].join(timeout=1.0)
            _close(child.stdin)
            _wait(child)
            threads[1].join(timeout=5.0)
        return result, child.returncode, b"".join(errors).decode("utf-8", "replace").strip()


def _parse(line: bytes) -> dict[str, Any] | None:
    # A login shell may print a greeting of its own.
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _send(pipe: IO[bytes], message: bytes) -> None:
    try:
        pipe.write(message)
        pipe.flush()
    except (BrokenPipeError, ValueError):
        return  # the device refused before it had read everything, and says why


def _collect(pipe: IO[bytes], found: list[bytes]) -> None:
    found.append(pipe.read())


def _close(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except BrokenPipeError:
        return


def _wait(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(timeout=10.0)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _cause(result: dict[str, Any], code: int, errors: str, python: str) -> str:
    last = errors.splitlines()[-1] if errors else ""
    if "error" in result:
        return str(result["error"])
    if result.get("state"):
        return f"the connection was lost while {result['state']}{': ' + last if last else ''}"
    if code == _CONNECTION_FAILED:
        return f"ssh cannot connect: {last or 'no reason given'}"
    if code == _NOT_FOUND:
        return f"it has no {python}; name another with --python"
    return f"it did not answer: {last or f'ssh ended with {code}'}"
