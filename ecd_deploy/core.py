"""What a Python program calls instead of the command, for what needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecd_deploy.pipelines.gate.decide import GateReport
    from ecd_deploy.pipelines.record.profile import Profile

AnyPath = str | PathLike[str]


def gate(run_dir: AnyPath, *, baseline: AnyPath | None = None, config: AnyPath | None = None) -> GateReport:
    """Decide about a validated and profiled run, as `ecd-deploy gate` does; `gate.json` and `junit.xml` are written.

    Args:
        run_dir: of the run.
        baseline: another run directory to compare with, which is only read.
        config: a TOML file whose limits take the place of the recipe's.

    Returns:
        The report. A limit that is violated or undecided raises nothing: see its `verdict`.

    Raises:
        UsageError: a step is missing, or the baseline or the limits cannot be used.
        ArtefactError: a file was changed after it was written.
    """
    from ecd_deploy.pipelines.run import run_gate

    return run_gate(
        Path(run_dir),
        baseline=None if baseline is None else Path(baseline),
        limits_file=None if config is None else Path(config),
    )


def profile(
    target: AnyPath,
    *,
    device: str | None = None,
    threads: int | None = None,
    cpus: Sequence[int] | None = None,
    memory_mb: int | None = None,
) -> Profile:
    """Measure latency, memory and throughput on this host, as `ecd-deploy profile` does.

    Args:
        target: a run directory, whose `profile.json` is written, or an ONNX file.
        device: whose number of threads is taken.
        threads: of onnxruntime; by default the recipe's, or 1.
        cpus: numbers of the CPUs that the measurement is pinned to.
        memory_mb: limit of its data memory.

    Returns:
        What was measured. A measurement on a busy host raises nothing: see `latency.reasons`.

    Raises:
        UsageError: the target or a condition cannot be used.
        ArtefactError: the model cannot be read or run.
    """
    from ecd_deploy.pipelines.device.command import Conditions, profile_target

    given = None if cpus is None else ",".join(map(str, cpus))
    return profile_target(
        Path(target), Conditions.read(device=device, threads=threads, cpus=given, memory_mb=memory_mb)
    )
