"""Plants hostile inputs and sees what the real commands make of each: never a traceback, never exit code 70.

Students, image folders, recipes and limits, run directories, devices, foreign ONNX files and signals; each case stands
beside others of its kind, with the exit codes that it may end with and what its message must say.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.figures import Figure, Report
from benchmarks.hostile import devices, images, recipes, runs, students
from benchmarks.hostile.case import Case, Outcome, Place, as_row, attempt

_AT_A_TIME = 2


def measure() -> Report:
    """Try every case, two at a time, from two short runs that are made first."""
    cases = [*students.cases(), *images.cases(), *recipes.cases(), *runs.cases(), *devices.cases()]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        finished = runs.prepare(root)
        places = (Place(root / str(number), finished) for number in range(len(cases)))
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            outcomes = list(_told(pool.map(attempt, cases, places), cases))
    missed = [outcome for outcome in outcomes if outcome.missed]
    return Report(
        benchmark="hostile",
        figures=(
            Figure(name="hostile inputs", value=len(outcomes), better="higher", must=250, unit=""),
            Figure(
                name="of them, those that missed an expectation", value=len(missed), better="lower", must=0, unit=""
            ),
            Figure(
                name="longest time to an answer",
                value=max(outcome.seconds for outcome in outcomes),
                better="lower",
                unit="s",
            ),
            Figure(
                name="largest memory", value=max(outcome.peak_mb for outcome in outcomes), better="lower", unit="MB"
            ),
        ),
        setting={"at_a_time": _AT_A_TIME, "cases": dict(Counter(case.kind for case in cases))},
        raw={
            "codes": {kind: _codes(outcomes, kind) for kind in dict.fromkeys(case.kind for case in cases)},
            "cases": [as_row(outcome) for outcome in outcomes],
        },
    )


def _told(outcomes: Iterator[Outcome], cases: list[Case]) -> Iterator[Outcome]:
    for number, outcome in enumerate(outcomes, 1):
        verdict = f"MISSED: {'; '.join(outcome.missed)}" if outcome.missed else f"{outcome.code}"
        print(f"{number}/{len(cases)} {outcome.kind}: {outcome.name}: {verdict}", file=sys.stderr)
        yield outcome


def _codes(outcomes: list[Outcome], kind: str) -> dict[str, int]:
    """How often each exit code ended a case of a kind."""
    return dict(sorted(Counter(str(outcome.code) for outcome in outcomes if outcome.kind == kind).items()))
