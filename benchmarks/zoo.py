"""Every convolutional family of torchvision and many of timm: which of them can be trained, split and exported.

The table is written after each family, and a family that it holds is not done again for the same versions:
an interrupted `make zoo` continues where it was. Delete the file to start over.
"""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.families import CLASSES, FAMILIES, IMAGES, TOLERANCE, check_family, package_versions
from benchmarks.figures import Figure, Report, rows_so_far, write

TIMEOUT_SECONDS = 400
NAME = "zoo"


def measure() -> Report:
    """Check every family that the table does not hold yet, each in a process of its own."""
    rows = rows_so_far(NAME, package_versions())
    for student in FAMILIES:
        if student in rows:
            continue
        rows[student] = _checked(student)
        print(f"{student}: {rows[student]['reason'] or 'ok'} ({rows[student]['seconds']} s)", file=sys.stderr)
        write(_report(rows))
    return _report(rows)


def _report(rows: dict[str, dict[str, Any]]) -> Report:
    ordered = [rows[student] for student in FAMILIES if student in rows]
    ok = sum(not row["reason"] for row in ordered)
    trained = sum("split" in row["passed"] for row in ordered)
    return Report(
        benchmark=NAME,
        figures=(
            Figure(name="families checked", value=len(ordered), better="higher", unit=f"of {len(FAMILIES)}"),
            Figure(name="families trained a step and split", value=trained, better="higher", unit=""),
            Figure(name="families with ONNX parity", value=ok, better="higher", unit=""),
        ),
        setting={**package_versions(), "images": IMAGES, "classes": CLASSES, "relative_tolerance": TOLERANCE},
        raw={"rows": ordered},
    )


def _checked(student: str) -> dict[str, Any]:
    # Forked, because torch, timm and the exporter take seconds to import; this process itself computes nothing.
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send_outcome, args=(student, theirs))
    process.start()
    theirs.close()
    reason = f"took more than {TIMEOUT_SECONDS} s"
    try:
        if ours.poll(TIMEOUT_SECONDS):
            row: dict[str, Any] = ours.recv()
            return row
    except EOFError:
        reason = "the process was ended, for want of memory perhaps"
    finally:
        process.kill()
        process.join()
    return {"student": student, "passed": [], "reason": reason, "seconds": TIMEOUT_SECONDS}


def _send_outcome(student: str, pipe: Connection[Any, Any]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    pipe.send(asdict(check_family(student)))
