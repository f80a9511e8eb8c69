"""Plants hostile inputs and sees what the real commands make of each: never a traceback, never exit code 70.

Students, image folders, recipes and limits, run directories, devices, foreign ONNX files and signals; each case stands
beside others of its kind, with the exit codes that it may end with and what its message must say. The table is written
after each case, and one that met its expectation is not tried again for the same versions: an interrupted
`make hostile` continues where it was. Delete the file to start over.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.families import package_versions
from benchmarks.figures import Figure, Report, rows_so_far, write
from benchmarks.hostile import devices, images, recipes, runs, students
from benchmarks.hostile.case import Case, Place, attempt

NAME = "hostile"
_AT_A_TIME = 2


def all_cases() -> tuple[Case, ...]:
    """Every case; no two have one name."""
    return (*recipes.cases(), *runs.cases(), *devices.cases(), *images.cases(), *students.cases())


def measure() -> Report:
    """Try every case, two at a time, from two short runs that are made first."""
    cases = all_cases()
    rows = {name: row for name, row in rows_so_far(NAME, _setting(), "name").items() if not row["missed"]}
    open_cases = [case for case in cases if case.full_name not in rows]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        finished = runs.prepare(root)
        places = [Place(root / str(number), finished) for number in range(len(open_cases))]
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            for outcome in pool.map(attempt, open_cases, places):
                verdict = f"MISSED: {'; '.join(outcome.missed)}" if outcome.missed else outcome.code
                print(f"{outcome.name}: {verdict} ({outcome.seconds} s)", file=sys.stderr)
                rows[outcome.name] = asdict(outcome)
                write(_report([rows[case.full_name] for case in cases if case.full_name in rows]))
    return _report([rows[case.full_name] for case in cases])


def _setting() -> dict[str, Any]:
    return {**package_versions(), "at_a_time": _AT_A_TIME}


def _report(rows: Sequence[dict[str, Any]]) -> Report:
    figures = (
        Figure(name="hostile inputs", value=len(rows), better="higher", must=300, unit=""),
        Figure(
            name="of them, those that missed an expectation",
            value=sum(bool(row["missed"]) for row in rows),
            better="lower",
            must=0,
            unit="",
        ),
        Figure(name="longest time to an answer", value=max(row["seconds"] for row in rows), better="lower", unit="s"),
        Figure(name="largest memory", value=max(row["peak_mb"] for row in rows), better="lower", unit="MB"),
    )
    kinds = dict.fromkeys(row["kind"] for row in rows)
    codes = {kind: dict(Counter(str(row["code"]) for row in rows if row["kind"] == kind)) for kind in kinds}
    return Report(benchmark=NAME, figures=figures, setting=_setting(), raw={"codes": codes, "rows": rows})
