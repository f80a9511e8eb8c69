"""What a Python program calls instead of the command, for what needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from ecd_deploy.errors import UsageError

if TYPE_CHECKING:
    from ecd_deploy.pipelines.gate.decide import GateReport
    from ecd_deploy.pipelines.record.profile import Profile

AnyPath = str | PathLike[str]


def gate(
    target: AnyPath,
    *,
    data: AnyPath | None = None,
    baseline: AnyPath | None = None,
    config: AnyPath | None = None,
    out: AnyPath | None = None,
) -> GateReport:
    """Decide about a validated and profiled run, or about any model on labelled images, as `ecd-deploy gate` does.

    Args:
        target: a run directory, where `gate.json` and `junit.xml` are written; with `data` an ONNX file too.
        data: a folder that holds `CLASS/*.jpg`, or a CSV file: the model is evaluated on these and profiled first.
        baseline: another one to compare with, which is only read.
        config: a TOML file whose limits take the place of the recipe's; with `data` it also says what a model expects.
        out: with `data`, the folder for the results.

    Returns:
        The report. A limit that is violated or undecided raises nothing: see its `verdict`.

    Raises:
        UsageError: a step is missing, or the baseline or the limits cannot be used.
        ArtefactError: a file was changed after it was written.
    """
    from ecd_deploy.pipelines.run import run_gate, run_model_gate

    other, limits = (None if path is None else Path(path) for path in (baseline, config))
    if data is None:
        return run_gate(Path(target), baseline=other, limits_file=limits)
    if out is None:
        raise UsageError("gate: `data` needs `out`, the folder for the results")
    return run_model_gate(Path(target), Path(data), config=limits, baseline=other, out=Path(out))


def profile(
    target: AnyPath,
    *,
    artefact: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    cpus: Sequence[int] | None = None,
    memory_mb: int | None = None,
    provider: str | None = None,
) -> Profile:
    """Measure latency, memory and throughput on this host, as `ecd-deploy profile` does.

    Args:
        target: a run directory, in which the profile is kept, or an ONNX file.
        artefact: format of one of the run's; by default what ships.
        device: whose number of threads is taken.
        threads: of onnxruntime; by default the recipe's, or 1.
        cpus: numbers of the CPUs that the measurement is pinned to.
        memory_mb: limit of its data memory.
        provider: onnxruntime's, `NAME` or `NAME:key=value,...`; by default the recipe's, or the CPU.

    Returns:
        What was measured, of the first artefact where several ship. A measurement on a busy host raises nothing: see
        `latency.reasons`.

    Raises:
        UsageError: the target or a condition cannot be used.
        ArtefactError: the model cannot be read or run.
    """
    from ecd_deploy.pipelines.device.command import Conditions, profile_target

    given = None if cpus is None else ",".join(map(str, cpus))
    conditions = Conditions.read(device=device, threads=threads, cpus=given, memory_mb=memory_mb, provider=provider)
    return profile_target(Path(target), conditions, choice=artefact)[0]
