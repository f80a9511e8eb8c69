"""Run the benchmarks named, or all, write their results and print one table: `python -m benchmarks [NAME ...]`."""

from __future__ import annotations

import importlib
import sys

from benchmarks.figures import Figure, Report, Skipped, show, write
from benchmarks.studies import STUDIES

BENCHMARKS = (
    "training_step",
    "sample_convolution",
    "data_path",
    "augmented_path",
    "epoch_overhead",
    "artefact_speed",
    "after_training",
    "start_up",
    "rehearsal",
    "reproducibility",
)
"""Modules of this package, each with `measure() -> Report`; the order is that of the table."""

ON_REQUEST = (
    "digits_demo",
    "chaos",
    "leaks",
    "false_alarms",
    "corruption",
    "hostile",
    "zoo",
    "memory",
    "gate_calibration",
    "profiler_floor",
    "evaluation_speed",
    "quantisation_aware",
    "images",
    *STUDIES,
    "study_diagnosis",
)
"""Studies, and modules that run only when they are named."""

CHECKS = ("chaos", "gate_calibration", "leaks", "false_alarms", "corruption", "hostile", "images")
"""Modules whose figures must be reached, or the exit code is 1."""


def measure(name: str) -> Report:
    """Run one benchmark."""
    if name in STUDIES:
        study: Report = importlib.import_module("benchmarks.study_results").finish(name)
        return study
    report: Report = importlib.import_module(f"benchmarks.{name}").measure()
    return report


def main(names: list[str]) -> int:
    """Measure and report; what a figure reached changes the exit code for `CHECKS` only."""
    choices = BENCHMARKS + ON_REQUEST
    if unknown := [name for name in names if name not in choices]:
        print(f"no benchmark {', '.join(unknown)}; choices are {', '.join(choices)}", file=sys.stderr)
        return 2
    figures: list[Figure] = []
    failed = False
    for name in names or BENCHMARKS:
        print(f"measuring {name}", file=sys.stderr)
        try:
            report = measure(name)
        except Skipped as error:
            print(f"{name} is skipped: {error}", file=sys.stderr)
            continue
        write(report)
        figures += report.figures
        failed |= name in CHECKS and any(figure.reached(figure.must) is False for figure in report.figures)
    show(figures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
