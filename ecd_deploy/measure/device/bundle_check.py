"""`run.py` of a bundle: is the model here what it was where the bundle was made, and how fast is it?

`python run.py` needs numpy and onnxruntime and what lies beside it, no network. It checks every file's SHA-256, the
scores of real images, in batches and one at a time, how many of these are right, and the latency; it prints a
summary and, as the last line, JSON.
Exit codes: 0 pass, 1 a limit is violated, 2 wrong call, 3 inconclusive, 4 a damaged file or a model that does not
run, 70 a fault of this program, 130 stopped. Runs on Python 3.8 and newer.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import onnxruntime
    from numpy.typing import NDArray

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before onnxruntime is imported, here and in the runner

SCHEMA_VERSION = 1
SUMS_NAME = "SHA256SUMS"
DESCRIPTION_NAME = "bundle.json"
RUNNER_NAME = "device_runner.pyz"
_CPU = "CPUExecutionProvider"
_BATCH_SIZE = 16
_EXIT_CODES = {"pass": 0, "fail": 1, "inconclusive": 3}


class _Damaged(Exception):
    """A file is not what was packed, or the model does not run."""


class _TooSlow(Exception):
    """The latency was not measured in the time that it has."""


class _Bundle:
    """The files beside this one; what is read was checked against its digest first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._digests = {}
        for line in _bytes(folder / SUMS_NAME).decode("utf-8", "replace").splitlines():
            digest, _, name = line.partition("  ")
            self._digests[name] = digest
        for name in (*self._digests, "run.py"):
            self.read(name)
        self.description: dict[str, Any] = json.loads(self.read(DESCRIPTION_NAME))
        self.files = len(self._digests)

    def read(self, name: str) -> bytes:
        data = _bytes(self._folder / name)
        if self._digests.get(name) != hashlib.sha256(data).hexdigest():
            raise _Damaged(f"{name} is damaged: its SHA-256 is not that of {SUMS_NAME}")
        return data

    def array(self, name: str) -> NDArray[Any]:
        import numpy as np

        array: NDArray[Any] = np.load(io.BytesIO(self.read(name)), allow_pickle=False)
        return array

    def checked_path(self, name: str) -> str:
        self.read(name)
        return str(self._folder / name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the bundle in this file's folder; returns the exit code."""
    options = _parse(arguments)
    try:
        if options.images:
            bundle = _Bundle(Path(__file__).resolve().parent)
            show = _shipped(bundle, "classify").show
            return int(show(bundle.read, options.images, _session(bundle, options)))
        document = check(Path(__file__).resolve().parent, options)
        if options.json is not None:
            Path(options.json).write_text(json.dumps(document) + "\n", encoding="utf-8")
    except _Damaged as error:
        return _end(str(error), 4)
    except ImportError as error:
        if error.name == "PIL":
            return _end("Pillow is needed to read images: pip install pillow", 4)
        return _end(f"numpy and onnxruntime are needed here{_made_with()}: {error}", 4)
    except OSError as error:
        what = "read the images" if options.images else f"write {options.json}"
        return _end(f"cannot {what}: {error.strerror or error}", 4)
    except KeyboardInterrupt:
        return _end("stopped", 130)
    except Exception as error:  # noqa: BLE001 - the last resort: exit code 1 would mean a violated limit
        return _end(f"internal error ({type(error).__name__}: {error})", 70)
    _show(document)
    return _EXIT_CODES[document["verdict"]]


def check(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Check files, scores, accuracy and latency, in this order; a wrong model is not timed."""
    bundle = _Bundle(folder)
    import numpy as np
    import onnxruntime as ort

    description, rows = bundle.description, _shipped(bundle, "checks")
    checks = [rows.row_of("files", "pass", f"{bundle.files} files have the SHA-256 that was recorded")]
    checks += _provider_rows(bundle, options)
    expected, labels = bundle.array("samples/scores.npy"), bundle.array("samples/labels.npy")
    size = description["batch"] or _BATCH_SIZE
    found = _scores(bundle, options, size)
    checks.append(rows.parity_row("parity", description, expected, found, size))
    if description["batch"] is None and checks[-1]["verdict"] == "pass":
        found = _scores(bundle, options, 1)
        checks.append(rows.parity_row("batch 1", description, expected, found, 1))
    if checks[-1]["verdict"] == "pass":
        checks.append(rows.accuracy_row(description, labels, found))
    latency = None
    if all(entry["verdict"] == "pass" for entry in checks):
        if options.no_latency:
            said = "not measured, as --no-latency says; no limit on it is decided"
            checks.append(rows.row_of("latency", "skipped", said))
        else:
            try:
                measurement = _measure(bundle, options)
                latency = measurement["latency"]
                latency["peak_memory_mb"] = measurement["cold_start"]["peak_memory_mb"]
                checks += rows.latency_rows(description, latency)
            except _TooSlow as error:
                checks.append(rows.row_of("latency", "inconclusive", str(error)))
    verdicts = {entry["verdict"] for entry in checks}
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": next(verdict for verdict in ("fail", "inconclusive", "pass") if verdict in verdicts),
        "checks": checks,
        "bundle": {name: description[name] for name in ("name", "student", "format", "model", "model_sha256")},
        "place": {
            "machine": platform.machine(),
            "system": platform.system(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "onnxruntime": ort.__version__,
            "provider": options.provider or description["latency"]["provider"] or "CPU",
        },
        "latency": latency,
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="only name the classes of these photos")
    parser.add_argument("--threads", type=int, help="threads of onnxruntime; default: the run's")
    parser.add_argument(
        "--provider", metavar="NAME[:KEY=VALUE,...]", help="of onnxruntime; default: the run's, or the CPU's"
    )
    parser.add_argument("--no-latency", action="store_true", help="check files, scores and accuracy only")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="for the latency; default: as the run says")
    parser.add_argument("--json", metavar="FILE", help="also write everything to this file, each latency included")
    options = parser.parse_args(arguments)
    if options.threads is not None and options.threads < 1:
        parser.error("--threads must be at least 1")
    if options.timeout is not None and not options.timeout > 0:
        parser.error("--timeout must be above 0")
    return options


def _shipped(bundle: _Bundle, name: str) -> Any:
    """A module of the archive beside this file."""
    archive = bundle.checked_path(RUNNER_NAME)
    if archive not in sys.path:
        sys.path.insert(0, archive)
    return import_module(f"runner.{name}")


def _session(bundle: _Bundle, options: argparse.Namespace) -> onnxruntime.InferenceSession:
    session: onnxruntime.InferenceSession = _by_runner("sessions", "open_session", bundle, options)
    return session


def _by_runner(module: str, function: str, bundle: _Bundle, options: argparse.Namespace) -> Any:
    """What a function of the device runner makes of the model, its threads and its provider."""
    import onnxruntime as ort

    latency, name = bundle.description["latency"], bundle.description["model"]
    call = getattr(_shipped(bundle, module), function)
    try:
        return call(bundle.read(name), options.threads or latency["threads"], options.provider or latency["provider"])
    except _Damaged:
        raise
    except Exception as error:
        here = f"onnxruntime {ort.__version__} cannot run {name} here{_made_with()}"
        raise _Damaged(f"{here}: {error}".replace("\n", " ")) from error


def _provider_rows(bundle: _Bundle, options: argparse.Namespace) -> list[dict[str, Any]]:
    """If a provider is named, a row of what it leaves to the CPU; one that takes nothing is refused."""
    provider = options.provider or bundle.description["latency"]["provider"]
    if provider is None:
        return []
    operators = _by_runner("operators", "operators_of", bundle, options)
    fallen = sorted(entry["name"] for entry in operators if entry["provider"] == _CPU)
    reason = f"{provider} runs {len(operators) - len(fallen)} of {len(operators)} operators"
    if len(fallen) == len(operators):  # another provider than the CPU's would have been refused
        reason = f"{provider} runs all {len(operators)} operators"
    elif fallen:
        reason += f"; the CPU runs {', '.join(fallen)}"
    return [_shipped(bundle, "checks").row_of("provider", "pass", reason)]


def _scores(bundle: _Bundle, options: argparse.Namespace, size: int) -> NDArray[np.float32]:
    import numpy as np

    description = bundle.description
    images = _shipped(bundle, "classify").prepare(bundle.array("samples/images.npy"), description["preprocessing"])
    count = len(images)
    if description["batch"] is not None:  # the last one is repeated to fill the last batch
        images = np.concatenate((images, np.repeat(images[-1:], -count % size, axis=0)))
    names = description["input"], [description["output"]]
    session = _session(bundle, options)
    try:
        parts = [session.run(names[1], {names[0]: images[at : at + size]})[0] for at in range(0, len(images), size)]
    except Exception as error:
        raise _Damaged(f"{description['model']} fails here{_made_with()}: {error}".replace("\n", " ")) from error
    scores: NDArray[np.float32] = np.concatenate(parts).astype(np.float32)
    return scores.reshape(len(images), -1)[:count]


def _measure(bundle: _Bundle, options: argparse.Namespace) -> dict[str, Any]:
    description = bundle.description
    command = [sys.executable, bundle.checked_path(RUNNER_NAME), bundle.checked_path(description["model"])]
    command += description["latency"]["options"]
    if options.provider is not None:
        command += ["--provider", options.provider]
    if options.threads is not None:
        command += ["--threads", str(options.threads)]
    timeout = options.timeout or description["latency"]["timeout_seconds"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise _TooSlow(f"it was not measured within {timeout:g} s: --timeout gives it more") from error
    if done.returncode != 0:
        cause = done.stderr.strip().splitlines()[-1:] or [f"it ended with {done.returncode}"]
        raise _Damaged(f"the latency cannot be measured: {cause[0]}")
    measurement: dict[str, Any] = json.loads(done.stdout)
    return measurement


def _show(document: dict[str, Any]) -> None:
    names = [document["bundle"][name] for name in ("model", "format", "student")]
    lines = ["{}: {}".format(document["bundle"]["name"], ", ".join(filter(None, names)))]
    lines += [f"  {row['name']:<12} {row['verdict']:<13} {row['reason']}" for row in document["checks"]]
    lines.append(f"verdict: {document['verdict']}")
    latency = document["latency"]
    if latency is not None:  # thousands of samples are for --json
        document = {**document, "latency": {name: latency[name] for name in latency if name != "samples_ms"}}
    lines.append(json.dumps(document, separators=(",", ":")))
    sys.stdout.write("\n".join(lines) + "\n")


def _made_with() -> str:
    """With which versions the student was checked where the bundle was made, for an error here."""
    try:
        made = json.loads((Path(__file__).resolve().parent / DESCRIPTION_NAME).read_text(encoding="utf-8"))
        return f" (it was checked with onnxruntime {made['onnxruntime']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _end(message: str, code: int) -> int:
    sys.stderr.write(f"Error: {message}\n")
    return code


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _Damaged(f"cannot read {path.name}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
