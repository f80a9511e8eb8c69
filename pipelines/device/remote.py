"""Measuring on real devices over the system's OpenSSH, so that its keys, jump hosts and settings work."""

from __future__ import annotations

import json
import re
import shlex
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from importlib.resources import files

from ecd_deploy.errors import ArtefactError, EcdDeployError, ExportError
from ecd_deploy.files import sha256_bytes
from ecd_deploy.measure.device.archive import RUNNER_NAME, runner_archive
from ecd_deploy.measure.latency.measurement import Measurement, parse_measurement, runner_arguments
from ecd_deploy.pipelines.device.ssh import Answer, converse
from ecd_deploy.recipe.profile import ProfileConfig

Report = Callable[[str, str], None]
"""Called with a host and what happens there."""

_PACKAGES = ("numpy", "onnxruntime")
_SSH_OPTIONS = ("BatchMode=yes", "ConnectTimeout=15", "ServerAliveInterval=5", "ServerAliveCountMax=3")
_SSH = ("ssh", "-T", *(word for option in _SSH_OPTIONS for word in ("-o", option)))
_CONNECTION_FAILED = 255
_NOT_FOUND = 127
_SECONDS_BETWEEN_LOOKS = 0.5
_HOME = re.compile(r"~[\w.-]*/")


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
    payload = {RUNNER_NAME: runner_archive(), "model.onnx": model}
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
    bootstrap = (files("ecd_deploy.measure.device") / "remote_bootstrap.py").read_bytes()
    command = [*ssh, "--", host, _remote_command(python, bootstrap)]
    say(host, "connecting")
    message = bootstrap + (json.dumps(header) + "\n").encode() + b"".join(payload.values())
    try:
        answer = converse(command, message, timeout + 60.0, lambda state: say(host, state))
    except FileNotFoundError as error:
        raise DeviceError(f"{host}: there is no {ssh[0]} on this machine; install OpenSSH's client") from error
    except OSError as error:
        raise DeviceError(f"{host}: {ssh[0]} cannot be started: {error.strerror}") from error
    problem = None
    if answer.result is not None:
        try:
            found = parse_measurement(answer.result)
        except ExportError as error:
            problem = str(error)
        else:
            problem = _check_conditions(found, config)
            if problem is None:
                say(host, "done")
                return found
    say(host, "failed")
    raise DeviceError(f"{host}: {problem or _cause(answer, python)}")


def measure_on_hosts(
    hosts: Sequence[str], measure: Callable[[str], Measurement]
) -> dict[str, Measurement | EcdDeployError]:
    """Measure on several devices at once; a device that fails keeps no other from its result."""
    found: dict[str, Future[Measurement]] = {host: Future() for host in hosts}

    def attempt(host: str) -> None:
        try:
            found[host].set_result(measure(host))
        except BaseException as error:
            found[host].set_exception(error)
            if not isinstance(error, Exception):
                raise

    for host in hosts:
        # A signal ends the command without them; the devices stop when their standard input ends.
        threading.Thread(target=attempt, args=(host,), daemon=True).start()
    return {host: _outcome(future) for host, future in found.items()}


def _outcome(future: Future[Measurement]) -> Measurement | EcdDeployError:
    # A signal that the system gave to another thread is seen by this one only when it wakes.
    while not wait([future], timeout=_SECONDS_BETWEEN_LOOKS).done:
        pass
    try:
        return future.result()
    except EcdDeployError as error:
        return error


def _remote_command(python: str, bootstrap: bytes) -> str:
    """What the login shell is given: one short line without exclamation marks, for csh takes no other."""
    home = _HOME.match(python)
    start = home[0] if home else ""  # the login shell's to expand, so it must not be quoted
    read = f"import sys; exec(sys.stdin.buffer.read({len(bootstrap)}))"
    return f"{start}{shlex.quote(python[len(start) :])} -c {shlex.quote(read)}"


def _check_conditions(found: Measurement, config: ProfileConfig) -> str | None:
    asked = {"threads": config.threads, "batch size": config.batch_size}
    given = {"threads": found.latency.threads, "batch size": found.latency.batch_size}
    wrong = [f"{name} {given[name]}, asked were {asked[name]}" for name in asked if given[name] != asked[name]]
    return f"it measured under other conditions: {'; '.join(wrong)}" if wrong else None


def _cause(answer: Answer, python: str) -> str:
    if answer.problem is not None:
        return answer.problem
    if answer.state:
        return f"the connection was lost while {answer.state}{': ' + answer.errors if answer.errors else ''}"
    if answer.code == _CONNECTION_FAILED:
        return f"ssh cannot connect: {answer.errors or 'no reason given'}"
    if answer.code == _NOT_FOUND:
        return f"it has no {python}; name another with --python"
    return f"it did not answer: {answer.errors or f'ssh ended with {answer.code}'}"
