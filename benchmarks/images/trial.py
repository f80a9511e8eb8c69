"""What an image must be able to do, tried in containers that share a folder.

The run that `train` makes is gated by `gate`, and the bundle of its student is checked by `edge`.
"""

from __future__ import annotations

import json
import platform
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.images.archive import Configuration
from benchmarks.images.container import Container, files_of

RUN = "digits"
BUNDLE = "digits.tar.gz"
_ONLY_TMP = "! touch /opt/left /home/left 2>/dev/null && touch /tmp/kept"
_LABELS = ("title", "description", "licenses", "revision", "version")
_SECONDS = 1800
_DECIDED = (0, 3)
"""Exit codes of a gate on a machine that others use too: latency may be inconclusive."""


@dataclass(frozen=True)
class Check:
    """One thing that was tried: `found` is what it said last, or why it failed."""

    name: str
    passed: bool
    found: str


def check_image(target: str, container: Container) -> tuple[Check, ...]:
    """Try an image of the Dockerfile; nothing may be left behind in its root."""
    before = files_of(container.root)
    checks = [
        _tried(container, "--help"),
        _tried(container, *container.configuration.healthcheck[1:], entrypoint=(), name="health check"),
        _tried(
            container, "-c", "! touch /left 2>/dev/null && touch /tmp/kept", entrypoint=("sh",), name="read-only root"
        ),
        _labelled(container.configuration),
    ]
    checks += {"train": _train, "gate": _gate, "edge": _edge}[target](container)
    changed = len(before ^ files_of(container.root))
    return (*checks, Check("nothing left behind", changed == 0, f"{changed} files of the root changed"))


def _train(container: Container) -> list[Check]:
    return [
        _tried(container, "doctor"),
        _tried(container, "run", "digits", "--out", RUN, codes=_DECIDED),
        _tried(container, "bundle", RUN, "--out", BUNDLE),
        _tried(container, "report", RUN),
    ]


def _gate(container: Container) -> list[Check]:
    return [
        _tried(container, "doctor"),
        _tried(container, "gate", RUN, codes=_DECIDED),
        _tried(container, "verify", RUN),
    ]


def _edge(container: Container) -> list[Check]:
    folder = container.volume / "bundle"
    with tarfile.open(container.volume / BUNDLE) as archive:
        archive.extractall(folder, filter="data")
    (program,) = folder.rglob("run.py")
    inside = str(program.relative_to(container.volume))
    parity = _tried(container, inside, "--no-latency", entrypoint=("python3",), name="bundle")
    (model,) = program.parent.glob("*.onnx")
    latency = container.run(str(model.relative_to(container.volume)), seconds=_SECONDS)
    return [parity, Check("latency", latency.returncode == 0, _median(latency))]


def _median(latency: subprocess.CompletedProcess[str]) -> str:
    if latency.returncode != 0:
        return latency.stderr[-300:]
    document = json.loads(latency.stdout)
    (median,) = [entry["value_ms"] for entry in document["latency"]["percentiles"] if entry["fraction"] == 0.5]
    emulated = document["runtime"]["machine"] != platform.machine()
    return f"p50 {median:.3g} ms{', emulated: not that of a device' if emulated else ''}"


def _tried(
    container: Container,
    *arguments: str,
    entrypoint: Sequence[str] | None = None,
    codes: Sequence[int] = (0,),
    name: str | None = None,
) -> Check:
    done = container.run(*arguments, entrypoint=entrypoint, seconds=_SECONDS)
    said = f"exit code {done.returncode}"
    if name == "bundle" and done.returncode == 0:
        said = "; ".join(check["reason"] for check in json.loads(done.stdout.splitlines()[-1])["checks"][1:-1])
    elif done.returncode != 0:
        said += f": {' '.join((done.stderr or done.stdout).splitlines()[-3:])}"
    return Check(name or " ".join(arguments), done.returncode in codes, said)


def _labelled(configuration: Configuration) -> Check:
    missing = [name for name in _LABELS if not configuration.labels.get(f"org.opencontainers.image.{name}")]
    return Check("labels", not missing, f"without {', '.join(missing)}" if missing else f"{len(_LABELS)} labels")
