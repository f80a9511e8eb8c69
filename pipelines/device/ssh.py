"""One conversation with a device by the system's OpenSSH; whatever the device says, little of it is kept."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

_STATES = ("sending", "measuring")
_MOST_LINE = 32 << 20
"""Bytes of one line: the result of some million samples has fewer."""
_MOST_BEFORE = 1 << 20
"""Bytes of all lines before the result."""
_MOST_ERRORS = 64 << 10
_MOST_SHOWN = 300
_CHUNK = 1 << 16


class _Nonsense(Exception):
    """What a device writes cannot be an answer; nothing more of it is read."""


@dataclass(frozen=True)
class Answer:
    """How a conversation ended.

    Attributes:
        result: the device's document, as JSON; None if it gave none.
        problem: what the device, or the way in which it answered, says against it.
        state: the last that it said it was in; empty if it said none.
        code: of ssh.
        errors: the last line of ssh's standard error.
    """

    result: str | None
    problem: str | None
    state: str
    code: int
    errors: str


def printable(text: str) -> str:
    """What a device wrote as one line without control characters, which could steer the terminal, and not too long."""
    line = "".join(letter if letter.isprintable() else " " for letter in text).strip()
    return line if len(line) <= _MOST_SHOWN else f"{line[:_MOST_SHOWN]}..."


def converse(command: list[str], message: bytes, timeout: float, report: Callable[[str], None]) -> Answer:
    """Send, then read until the result; the device stops as soon as its standard input ends.

    Args:
        command: that starts ssh.
        message: for the device's standard input.
        timeout: seconds after which ssh is ended.
        report: called with each state that the device says it is in.

    Raises:
        OSError: ssh cannot be started.
    """
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        if child.stdin is None or child.stdout is None or child.stderr is None:
            raise RuntimeError("ssh was started without pipes")
        errors = bytearray()
        sender = threading.Thread(target=_send, args=(child.stdin, message), daemon=True)
        collector = threading.Thread(target=_collect, args=(child.stderr, errors), daemon=True)
        alarm = threading.Timer(timeout, child.kill)
        alarm.daemon = True  # none of these keeps a command that was stopped from ending
        try:
            for thread in (alarm, sender, collector):
                thread.start()
            result, problem, state = _listen(child.stdout, report)
        except _Nonsense as nonsense:
            child.kill()
            result, problem, state = None, str(nonsense), ""
        finally:
            alarm.cancel()
            sender.join(timeout=1.0)
            _close(child.stdin)
            _wait(child)
            collector.join(timeout=5.0)
        lines = errors.decode("utf-8", "replace").strip().splitlines()
        return Answer(result, problem, state, child.returncode, printable(lines[-1]) if lines else "")


def _listen(pipe: IO[bytes], report: Callable[[str], None]) -> tuple[str | None, str | None, str]:
    """Read messages until the last of them: the result or a problem, and the state before it."""
    state, written = "", 0
    while line := pipe.readline(_MOST_LINE + 1):
        if len(line) > _MOST_LINE or written > _MOST_BEFORE:
            raise _Nonsense("it writes without end")
        said = _message(line)
        if "result" in said:
            return json.dumps(said["result"]), None, state
        if "error" in said:
            return None, printable(str(said["error"])), state
        if said.get("state") in _STATES and said["state"] != state:
            state = said["state"]
            report(state)
        written += len(line)
    return None, None, state


def _message(line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except RecursionError as error:
        raise _Nonsense("its answer is nested too deeply") from error
    except ValueError:
        return {}  # a login shell may print a greeting of its own
    return said if isinstance(said, dict) else {}


def _send(pipe: IO[bytes], message: bytes) -> None:
    try:
        pipe.write(message)
        pipe.flush()
    except (BrokenPipeError, ValueError):
        return  # the device refused before it had read everything, and says why


def _collect(pipe: IO[bytes], found: bytearray) -> None:
    while chunk := pipe.read1(_CHUNK):  # type: ignore[attr-defined]
        found += chunk
        del found[:-_MOST_ERRORS]


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
