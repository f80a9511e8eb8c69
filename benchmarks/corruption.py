"""Flips a bit of, or cuts off, files of a finished run, and sees each refused before anything parses it.

The run is a real one by the command, in every format. The path is that of the steps: `open_run`, then
`RunDirectory.read`, whose bytes an exporter's `open` would be given: it is never reached.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Report
from ecd_deploy.errors import ArtefactError
from ecd_deploy.exporters.registry import writable_formats
from ecd_deploy.pipelines.record.names import MANIFEST_NAME
from ecd_deploy.pipelines.record.run_directory import open_run

MUTATIONS = 1000
_HANG = 10.0


def measure() -> Report:
    """Corrupt a run in every format a thousand times."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "run"
        formats = ", ".join(f'"{name}"' for name in writable_formats())
        choices = ("train.epochs=1", f"export.formats=[{formats}]", "profile.min_seconds=0.1")
        options = [word for choice in choices for word in ("--set", choice)]
        command = [sys.executable, "-m", "ecd_deploy", "run", "digits", "--out", str(root), *options]
        subprocess.run(command, cwd=folder, capture_output=True, check=False)  # an untrained student fails its gate
        tally = corrupt(root, MUTATIONS, seed=0)
    return Report(
        benchmark="corruption",
        figures=(
            Figure(
                name="corrupted files that were refused before they were loaded",
                value=tally["refused"] / MUTATIONS,
                better="higher",
                must=1.0,
                unit="",
            ),
            Figure(name="slowest refusal", value=tally["slowest_seconds"], better="lower", must=_HANG, unit="s"),
        ),
        setting={"mutations": MUTATIONS, "seed": 0, "formats": writable_formats()},
        raw=tally,
    )


def corrupt(root: Path, mutations: int, *, seed: int) -> dict[str, Any]:
    """Corrupt one file at a time, half of the time an artefact, each tenth time the manifest, and put it back.

    Args:
        root: of a finished run.
        mutations: how many.
        seed: of the choices.
    """
    generator = random.Random(seed)
    with open_run(root) as directory:
        names = [name for name, entry in directory.manifest.files.items() if entry.bytes] + [MANIFEST_NAME]
    artefacts = [name for name in names if name.startswith("exports/")]
    tally: dict[str, Any] = {"refused": 0, "loaded": [], "errors": Counter(), "slowest_seconds": 0.0}
    by_file: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for index in range(mutations):
        name = MANIFEST_NAME if index % 10 == 0 else generator.choice(artefacts if index % 2 else names)
        original = (root / name).read_bytes()
        kind, changed = _mutated(original, generator)
        (root / name).write_bytes(changed)
        started = time.perf_counter()
        try:
            with open_run(root) as directory:
                if name != MANIFEST_NAME:
                    directory.read(name)
            tally["loaded"].append({"file": name, "kind": kind, "mutation": index})
        except ArtefactError as error:
            tally["refused"] += 1
            tally["errors"][type(error).__name__] += 1
        finally:
            (root / name).write_bytes(original)
        tally["slowest_seconds"] = max(tally["slowest_seconds"], round(time.perf_counter() - started, 4))
        by_file[_kind_of(name)] += 1
        kinds[kind] += 1
    return {**tally, "errors": dict(tally["errors"]), "by_file": dict(sorted(by_file.items())), "by_kind": dict(kinds)}


def _mutated(data: bytes, generator: random.Random) -> tuple[str, bytes]:
    if generator.random() < 0.5:
        changed = bytearray(data)
        position = generator.randrange(len(data))
        changed[position] ^= 1 << generator.randrange(8)
        return "bit flip", bytes(changed)
    return "truncation", data[: generator.randrange(len(data))]


def _kind_of(name: str) -> str:
    folder = name.split("/", 1)[0]
    return name if folder == "exports" or "/" not in name else f"{folder}/"
