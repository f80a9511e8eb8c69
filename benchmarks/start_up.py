"""How long each command takes to start, and how much memory: what it does on a finished run of digits, or its help.

Help stands for what takes as long as its work: training, and evaluation of many images.

Processor seconds and peak memory of a fresh process, the least of several: what others do on the machine hardly
changes them. Python keeps bytecode, as an installed package has it, whatever the environment says. Which libraries a
command loads is held by `tests/test_start_up.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Figure, Report

ROUNDS = 5
TINY = ("train.epochs=1", "data.train_limit=200", "data.test_limit=100", "profile.min_seconds=0.1")


@dataclass(frozen=True)
class Started:
    """A command line, and the processor seconds and MiB that it may take."""

    words: tuple[str, ...]
    must_seconds: float
    must_mib: int


COMMANDS = (
    Started(("--version",), 0.25, 60),
    Started(("models",), 0.25, 60),
    Started(("recipes",), 0.5, 80),
    Started(("studies",), 0.6, 80),
    Started(("schema",), 0.6, 80),
    *(
        Started((name, "--help"), 0.25, 60)
        for name in ("compare", "evaluate", "init", "predict", "run", "search", "sign", "train")
    ),
    Started(("doctor",), 6.0, 900),
    Started(("inspect", "digits"), 16.0, 1200),
    Started(("rehearse", "digits"), 16.0, 1200),
    Started(("split", "run"), 12.0, 900),
    Started(("export", "run"), 14.0, 1100),
    Started(("validate", "run"), 10.0, 900),
    Started(("profile", "run"), 8.0, 200),
    Started(("gate", "run"), 1.0, 120),
    Started(("report", "run"), 3.0, 300),
    Started(("explain", "run"), 16.0, 1200),
    Started(("bundle", "run"), 3.0, 300),
    Started(("verify", "run"), 3.0, 800),
)
MUST_TIMES_VERSION = 6
_VERDICTS = (0, 1, 3)  # of the gate, which a tiny run may well fail


def measure() -> Report:
    """Make a tiny run, then call each command on it, in turns."""
    seconds: dict[str, float] = {}
    mib: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        sets = [part for key in TINY for part in ("--set", key)]
        _call(folder, ("run", "digits", "--out", "run", "--no-rehearsal", *sets))
        for _ in range(ROUNDS):
            for command in COMMANDS:
                name = " ".join(command.words)
                for bundle in Path(folder).glob("*.tar.gz"):  # a bundle is not replaced
                    bundle.unlink()
                spent, peak = _call(folder, command.words)
                seconds[name] = min(spent, seconds.get(name, spent))
                mib[name] = min(peak, mib.get(name, peak))
    figures = [
        Figure(
            name="start: gate of a finished run over --version",
            value=seconds["gate run"] / seconds["--version"],
            better="lower",
            must=MUST_TIMES_VERSION,
        )
    ]
    for command in COMMANDS:
        name = " ".join(command.words)
        for what, value, must, unit in (
            ("processor time", seconds[name], command.must_seconds, "s"),
            ("memory", mib[name], command.must_mib, "MiB"),
        ):
            figures.append(Figure(name=f"start: {name}, {what}", value=value, better="lower", must=must, unit=unit))
    setting = {"rounds": ROUNDS, "commands": [command.words for command in COMMANDS], "run": TINY}
    return Report(
        benchmark="start_up", figures=tuple(figures), setting=setting, raw={"seconds": seconds, "peak_mib": mib}
    )


_MEASURED = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", "ecd_deploy", *sys.argv[1:]], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(done.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def _call(folder: str, words: Sequence[str]) -> tuple[float, float]:
    """Processor seconds and peak MiB of a command in a folder; `ru_maxrss` is that of the largest child."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": ""},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    code, seconds, peak = done.stdout.split()
    if int(code) not in _VERDICTS:
        raise RuntimeError(f"ecd-deploy {' '.join(words)} ended with {code}")
    return float(seconds), float(peak)
