"""What ssh starts on a device: checks it, receives the runner and the model, runs them, and leaves nothing behind.

Standard input carries this program, one line of JSON, then the two files, and stays open while the caller is there:
when it ends, so does the measurement. Standard output carries one JSON object a line. Runs on Python 3.8 and newer.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

_CHUNK = 1 << 16


class _Refused(Exception):
    pass


def main() -> int:
    """Serve one measurement."""
    _on_signals(_stop)
    folder = None
    try:
        header = json.loads(sys.stdin.buffer.readline())
        _check(header)
        _say(state="sending")
        folder = tempfile.mkdtemp(prefix="ecd-deploy-")
        paths = [_receive(folder, entry) for entry in header["files"]]
        _say(state="measuring")
        _say(result=_run(paths, header))
    except _Refused as refusal:
        _say(error=str(refusal))
        return 1
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        _say(error="its disk is full" if full else f"it cannot keep the files: {error.strerror}")
        return 1
    finally:
        with contextlib.suppress(SystemExit):  # of a signal that came just now; none may interrupt the clearing
            _on_signals(signal.SIG_IGN)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def _check(header: dict[str, Any]) -> None:
    machine = platform.machine()
    if header["machine"] is not None and machine != header["machine"]:
        raise _Refused("its architecture is {}, and {} is expected".format(machine, header["machine"]))
    for package in header["packages"]:
        if importlib.util.find_spec(package) is None:
            raise _Refused(f"its Python {sys.version.split()[0]} has no {package}: pip install {package}")


def _receive(folder: str, entry: dict[str, Any]) -> str:
    path = Path(folder) / entry["name"]
    digest, missing = hashlib.sha256(), entry["bytes"]
    with path.open("wb") as file:
        while missing:
            chunk = sys.stdin.buffer.read(min(_CHUNK, missing))
            if not chunk:
                raise _Refused("the connection ended while {} was sent".format(entry["name"]))
            digest.update(chunk)
            file.write(chunk)
            missing -= len(chunk)
    if digest.hexdigest() != entry["sha256"]:
        raise _Refused("{} arrived damaged: SHA-256 {}".format(entry["name"], digest.hexdigest()))
    return str(path)


def _run(paths: list[str], header: dict[str, Any]) -> Any:
    folder = Path(paths[0]).parent
    with tempfile.TemporaryFile(dir=folder) as output:
        child = subprocess.Popen(
            [sys.executable, *paths, *header["arguments"]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            cwd=folder,
            env={**os.environ, "TMPDIR": str(folder)},  # so that it goes with the folder
            start_new_session=True,
        )
        try:
            threading.Thread(target=_end_with_the_caller, args=(child,), daemon=True).start()
            _, errors = child.communicate(timeout=header["timeout"])
        except subprocess.TimeoutExpired:
            raise _Refused("it did not finish within {:.0f} s".format(header["timeout"])) from None
        finally:
            _end(child)
        if child.returncode != 0:
            lines = errors.decode("utf-8", "replace").strip().splitlines()
            raise _Refused("it cannot run the model: " + (lines[-1] if lines else str(child.returncode)))
        output.seek(0)
        return json.loads(output.read())


def _end_with_the_caller(child: subprocess.Popen[bytes]) -> None:
    while os.read(0, 1):
        pass
    _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def _say(**message: Any) -> None:
    line = ("\n" + json.dumps(message) + "\n").encode()  # a login shell's greeting may not have ended its line
    with contextlib.suppress(BrokenPipeError):  # the caller is gone
        while line:
            line = line[os.write(1, line) :]


def _on_signals(action: Any) -> None:
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, action)


def _stop(number: int, _frame: object) -> None:
    _on_signals(signal.SIG_IGN)
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
