"""A hostile input, what must become of it, and how one is tried: by the real command, in a folder of its own."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.commands import Ended, run_forked
from ecd_deploy.files import sha256_file

_MOST_SECONDS = 120.0
SECONDS_OF_A_RUN = 400.0
"""For a case that trains and measures: on a machine that others use, one takes minutes."""
_MOST_BYTES = 3_000_000_000
_SHOWN = 300
_OF_LIBRARIES = ("home", "tmp", "home/.c*", "home/.c*/matplotlib*", "tmp/torchinductor_*", "*__pycache__*", "*.lock")
"""What any command may leave: matplotlib's and torch's caches, bytecode, and the lock of a folder that it held."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of the command.

    Attributes:
        words: its arguments.
        environment: variables besides those of every call.
        program: the command itself if it is to be started afresh, or another one; the words follow it.
        stop_when: SIGTERM comes as soon as this holds.
    """

    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = ()
    stop_when: Callable[[], bool] | None = None


@dataclass(frozen=True)
class Place:
    """Where a case is planted.

    Attributes:
        folder: empty, and the working directory of the command.
        finished: a finished run, not to be changed.
    """

    folder: Path
    finished: Path

    def run(self, name: str = "run") -> Path:
        """A copy of the finished run."""
        return Path(shutil.copytree(self.finished, self.folder / name, symlinks=True))

    def write(self, name: str, content: bytes | str) -> Path:
        """Write a file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path


Plant = Callable[[Place], Call]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One hostile input.

    Attributes:
        kind: of the input.
        name: what is wrong with it.
        plant: makes it, and says how the command is called.
        codes: exit codes of which it must end with one; 70 is never one.
        says: a pattern that its output has, spaces and line ends taken for one space.
        lines: that standard error has at most, if the command is to end with an error.
        writes: patterns of the paths that the command may make or change; nothing else in the folder may change.
        seconds: that it may take.
        check: looks at the folder and at how it ended, and returns what is wrong.
        afterwards: arguments of a second call that must end with 0.
    """

    kind: str
    name: str
    plant: Plant
    codes: frozenset[int]
    says: str = ""
    lines: int = 1
    writes: tuple[str, ...] = ()
    seconds: float = _MOST_SECONDS
    check: Callable[[Path, Ended], str | None] | None = None
    afterwards: tuple[str, ...] | None = None

    @property
    def full_name(self) -> str:
        """Of its kind and its name."""
        return f"{self.kind}: {self.name}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a case; a row of the table.

    Attributes:
        kind: of the case.
        name: its kind and name, which no other case has.
        code: the exit code; None if the command had to be killed.
        seconds: that it took.
        peak_mb: of its memory.
        says: the beginning of its message.
        left: what it made or changed though it must not.
        missed: each expectation that it did not meet.
    """

    kind: str
    name: str
    code: int | None
    seconds: float
    peak_mb: int
    says: str
    left: tuple[str, ...]
    missed: tuple[str, ...]


def attempt(case: Case, place: Place) -> Outcome:
    """Plant a case and see what the command does."""
    place.folder.mkdir(parents=True)
    call = case.plant(place)
    before = _contents(place.folder)
    try:
        ended = run(call, place.folder, case.seconds)
    except subprocess.TimeoutExpired:
        ended = None
    left = tuple(sorted(_changed(before, _contents(place.folder), case.writes)))
    row: dict[str, Any] = {"kind": case.kind, "name": case.full_name, "left": left}
    if ended is None:
        late = f"not ended within {case.seconds:g} s"
        return Outcome(**row, code=None, seconds=case.seconds, peak_mb=0, says="", missed=(late,))
    missed = tuple(_missed(case, place.folder, ended, left))
    errors = " ".join(ended.err.split())
    return Outcome(
        **row,
        code=ended.code,
        seconds=round(ended.seconds, 1),
        peak_mb=round(ended.peak_bytes / 1e6),
        says=errors.replace(str(place.folder), "")
        .replace(str(place.finished), "RUN")
        .replace(sys.executable, "PYTHON")[:_SHOWN],
        missed=missed,
    )


def _missed(case: Case, folder: Path, ended: Ended, left: tuple[str, ...]) -> list[str]:
    output = ended.out + ended.err
    lines = [line for line in ended.err.splitlines() if line.strip()]
    faults = {
        f"exit code {ended.code} instead of {sorted(case.codes)}": ended.code not in case.codes,
        "a traceback": "Traceback (most recent call last)" in output,
        "control characters on the terminal": any(letter in output for letter in "\x1b\x07\x08"),
        f"{len(lines)} lines instead of {case.lines}": ended.code != 0 and len(lines) > case.lines,
        f"does not say {case.says!r}": not re.search(case.says, " ".join(output.split())),
        f"makes or changes {', '.join(left[:5])}": bool(left),
        f"{ended.seconds:.0f} s instead of {case.seconds:g}": ended.seconds > case.seconds,
        f"{ended.peak_bytes / 1e9:.1f} GB": ended.peak_bytes > _MOST_BYTES,
    }
    missed = [words for words, met in faults.items() if met]
    if case.check is not None and (complaint := case.check(folder, ended)):
        missed.append(complaint)
    if case.afterwards is not None and (again := run(Call(words=case.afterwards), folder, case.seconds)).code:
        missed.append(f"`{' '.join(case.afterwards)}` ends with {again.code} afterwards: {again.err[:_SHOWN]}")
    return missed


def run(call: Call, folder: Path, seconds: float) -> Ended:
    """Call the command in a folder, with a home and a folder for temporary files of its own.

    Raises:
        subprocess.TimeoutExpired: it takes half a minute longer than that.
    """
    home, temporary = folder / "home", folder / "tmp"
    for made in (home, temporary):
        made.mkdir(exist_ok=True)
    silent = {"CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "GITHUB_STEP_SUMMARY"}
    environment = {name: value for name, value in os.environ.items() if name not in silent}
    path = os.pathsep.join(filter(None, (str(folder), environment.get("PYTHONPATH"))))
    environment |= {"HOME": str(home), "TMPDIR": str(temporary), "COLUMNS": "500", "PYTHONPATH": path}
    environment |= call.environment
    if not call.program:
        environment["ORT_DISABLE_TELEMETRY"] = "1"  # as the package sets it; the process is forked after that
        return run_forked(
            call.words, cwd=folder, environment=environment, timeout=seconds + 30, stop_when=call.stop_when
        )
    started = time.monotonic()
    done = subprocess.run(
        [*call.program, *call.words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds + 30,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr, time.monotonic() - started)


FRESH = (sys.executable, "-m", "ecd_deploy")
"""The program of a call whose process loads everything itself."""


def _contents(folder: Path) -> dict[str, str]:
    """What there is, by its path: digests of files, targets of links."""
    found: dict[str, str] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_dir():
            found[name] = "folder"
        elif path.is_file():
            found[name] = sha256_file(path)
    return found


def _changed(before: Mapping[str, str], after: Mapping[str, str], allowed: tuple[str, ...]) -> list[str]:
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return [
        os.fsencode(name).decode(errors="backslashreplace")
        for name in names
        if not any(fnmatch.fnmatch(name, pattern) for pattern in (*_OF_LIBRARIES, *allowed))
    ]


def settings(*values: str) -> tuple[str, ...]:
    """`--set` for each value."""
    return tuple(word for value in values for word in ("--set", value))
