"""Runs the parts one after another, each within its share of the seconds; a fault of one does not end the others."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch

from benchmarks.gpu.correctness import check_correctness
from benchmarks.gpu.engine import check_engine
from benchmarks.gpu.evidence import gather_few, gather_full
from benchmarks.gpu.parts import Findings, PartName, PartRecord, PartRun, Precision, describe_machine, write_record
from benchmarks.gpu.speed import measure_speed
from ecd_deploy.errors import Interrupted, UsageError

Work = Callable[[PartRun], Findings]

WORK: Mapping[PartName, Work] = {
    "correctness": check_correctness,
    "engine": check_engine,
    "speed": measure_speed,
    "few": gather_few,
    "full": gather_full,
}
"""In the order in which they are done."""

NOMINAL_SECONDS: Mapping[PartName, float] = {"correctness": 60, "engine": 60, "speed": 110, "few": 250, "full": 420}
"""What a part is meant to take; `full` gets all that is left."""


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """What to check.

    Attributes:
        parts: which.
        seconds: for all of them together.
        out: gets a file of each part.
        data: the folder of packed images; read by `few` and `full` alone.
        tiny: rehearse with minute sizes, on the CPU where there is no GPU.
        precision: that the evidence is trained in.
    """

    parts: Sequence[PartName]
    seconds: float
    out: Path
    data: Path
    tiny: bool = False
    precision: Precision = "no"


def check(options: CheckOptions, work: Mapping[PartName, Work] = WORK) -> list[PartRecord]:
    """Do the parts and write a file for each.

    Args:
        options: what to check.
        work: what does each part.

    Raises:
        UsageError: there is no GPU, and this is no rehearsal.
        ArtefactError: `out` cannot be written.
    """
    if not torch.cuda.is_available() and not options.tiny:
        raise UsageError("there is no GPU that torch can use; --tiny rehearses every part on the CPU")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    started = time.monotonic()
    records = []
    for part, deadline in deadlines([part for part in work if part in options.parts], options.seconds).items():
        budget = max(0.0, deadline - (time.monotonic() - started))
        records.append(_run(part, work[part], budget, device, options))
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return records


def deadlines(parts: Sequence[PartName], seconds: float) -> dict[PartName, float]:
    """When each part is to end, in seconds after the start of the first: what one leaves, the next one has.

    Args:
        parts: in their order.
        seconds: for all of them; where these are less than they are meant to take, each gets less.
    """
    nominal = list(accumulate(NOMINAL_SECONDS[part] for part in parts))
    scale = min(1.0, seconds / nominal[-1])
    return {part: seconds if part == "full" else end * scale for part, end in zip(parts, nominal, strict=True)}


def _run(part: PartName, work: Work, budget: float, device: torch.device, options: CheckOptions) -> PartRecord:
    started = time.monotonic()
    machine = describe_machine(device)
    known: Findings | None = None

    def keep(findings: Findings) -> None:
        nonlocal known
        known = findings
        write(finished=False, error=None)

    def write(*, finished: bool, error: str | None) -> PartRecord:
        record = PartRecord(
            part=part,
            tiny=options.tiny,
            finished=finished,
            budget_seconds=round(budget, 1),
            seconds=round(time.monotonic() - started, 1),
            error=error,
            findings=known,
            machine=machine,
        )
        write_record(options.out, record)
        return record

    run = PartRun(
        device=device,
        tiny=options.tiny,
        seconds=budget,
        data=options.data,
        precision=options.precision,
        keep=keep,
    )
    try:
        known = work(run)
    except Interrupted:
        write(finished=False, error=traceback.format_exc())
        raise
    except Exception:  # noqa: BLE001 (whatever fails is recorded, and the other parts go on)
        return write(finished=True, error=traceback.format_exc())
    return write(finished=True, error=None)
