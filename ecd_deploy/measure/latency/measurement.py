"""What the device runner measured, typed, and the runner's call in a child process.

The runner is an archive that knows nothing of this package, so that the same code measures here and on a device.
A child process keeps torch's threads and memory out of the figures, and survives a runtime that crashes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, StringConstraints

from ecd_deploy.errors import ExportError
from ecd_deploy.measure.device.archive import RUNNER_NAME, runner_archive
from ecd_deploy.measure.device.runner.percentiles import percentiles_of
from ecd_deploy.measure.predictors.untrusted import Limits, is_ort
from ecd_deploy.recipe.profile import ProfileConfig
from ecd_deploy.records import Record

CPU = "CPUExecutionProvider"
_GRACE_SECONDS = 300.0

Printed = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]*\z", max_length=10_000)]
"""Text without control characters: it is shown in terminals and reports, and may come from a device."""


class _Measured(Record, allow_inf_nan=False):
    """What the device runner writes: finite numbers only."""


class Percentile(_Measured):
    """One percentile of the latency in milliseconds."""

    fraction: float
    value_ms: NonNegativeFloat | None
    """None where the samples are too few."""
    upper_bound_ms: NonNegativeFloat | None
    """At 99 % confidence; None where the samples are too few."""
    samples_needed: int


class Host(_Measured):
    """How undisturbed a measurement was."""

    cpu_over_wall: NonNegativeFloat
    """CPU time over wall time of the measuring thread; well below one on a busy host."""
    process_cpu_over_wall: NonNegativeFloat | None = None
    """The same of all threads."""
    involuntary_switches: NonNegativeInt
    stolen: float | None = None
    """Share of the CPU time that a hypervisor took."""
    mhz: tuple[float | None, float | None] = (None, None)
    """Lowest clock of the CPUs before and after; None where the system does not say."""
    celsius: tuple[float | None, float | None] = (None, None)
    """Highest temperature before and after."""
    contended: bool
    """Whether the measurement is invalid."""
    reasons: tuple[Printed, ...] = ()
    """Each cause of that."""


class Latency(Host):
    """What one process measured on one host; raw samples are kept, rounded to 0.1 us."""

    threads: PositiveInt
    batch_size: PositiveInt
    load_ms: NonNegativeFloat
    first_run_ms: NonNegativeFloat
    percentiles: tuple[Percentile, ...]
    p50_range_ms: tuple[NonNegativeFloat, NonNegativeFloat] | None = None
    """Where the p50 lies at 95 % confidence by the medians of consecutive parts; None where the parts are too few."""
    reference_ms: NonNegativeFloat | None = None
    """Median time of a fixed matrix product, taken between the parts: how fast the host was at that time."""
    samples_ms: tuple[NonNegativeFloat, ...] = Field(min_length=1)

    def at(self, fraction: float) -> Percentile:
        """The percentile of this fraction.

        Raises:
            KeyError: it was not measured.
        """
        for entry in self.percentiles:
            if entry.fraction == fraction:
                return entry
        raise KeyError(fraction)


class ColdStart(_Measured):
    """Medians of fresh processes that load the model and run it once."""

    process_to_result_ms: NonNegativeFloat
    load_ms: NonNegativeFloat
    first_run_ms: NonNegativeFloat
    peak_memory_mb: NonNegativeFloat | None
    """None where the system does not say."""
    """Peak resident memory in 1e6 bytes, Python and onnxruntime included."""


class Throughput(_Measured):
    """Images a second at one batch size; None where the model's batch size is fixed to another."""

    batch_size: PositiveInt
    images_per_second: NonNegativeFloat | None


class Operator(_Measured):
    """One operator after onnxruntime's fusions."""

    name: Printed
    kind: Printed
    median_us: NonNegativeFloat


class OperatorMacs(_Measured):
    """Multiply-accumulates of one operator of the graph as written, for one image."""

    name: Printed
    macs: NonNegativeInt


class MeasuredModel(_Measured):
    """The file that was measured."""

    sha256: Printed
    bytes: NonNegativeInt
    input_shape: tuple[PositiveInt, ...]


class MeasuringRuntime(_Measured):
    """With what and on what it was measured."""

    python: Printed
    onnxruntime: Printed
    numpy: Printed
    system: Printed
    machine: Printed
    processor: Printed


class Measurement(_Measured):
    """The whole document of the device runner."""

    schema_version: Literal[1]
    model: MeasuredModel
    runtime: MeasuringRuntime
    cpus: tuple[int, ...]
    memory_limit_mb: int | None
    constrained: bool
    """Whether CPUs or memory were limited: a first estimate, not a device."""
    latency: Latency
    cold_start: ColdStart
    throughput: tuple[Throughput, ...]
    operators: tuple[Operator, ...]
    provider: Printed = CPU
    """Of onnxruntime, which runs the operators; name and version of another runtime, which names no operators."""
    on_cpu: tuple[Printed, ...] = ()
    """Names of the operators that the CPU runs; with another provider those that fell back to it."""
    provider_difference: NonNegativeFloat | None = None
    """Largest difference of a score from that of the CPU's provider, as a part of the largest score; None on the CPU.

    Of the images that are timed, which are noise: `run.py` of a bundle compares scores of real images there.
    """
    graph_macs: tuple[OperatorMacs, ...]
    peak_gflops: NonNegativeFloat
    """Best rate of a float32 matrix product on the same host with the same threads."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return sum(entry.macs for entry in self.graph_macs)

    @property
    def gflops(self) -> float | None:
        """Rate at the median latency, two operations a MAC; None without a median."""
        median = self.latency.at(0.5).value_ms
        return None if not median else 2e-6 * self.macs * self.latency.batch_size / median


class SessionBlocks(_Measured):
    """One session of an interleaved comparison."""

    name: Printed
    block_p50_ms: tuple[float, ...]
    """Median latency of each block, in the order of the blocks."""


class Comparison(_Measured):
    """Candidate, baseline and baseline again, timed in random blocks by one process."""

    schema_version: Literal[1]
    threads: PositiveInt
    sessions: tuple[SessionBlocks, SessionBlocks, SessionBlocks]
    host: Host


def runner_arguments(config: ProfileConfig) -> list[str]:
    """The runner's options for a `[profile]` section, without the model."""
    arguments = ["--threads", str(config.threads), "--batch-size", str(config.batch_size)]
    arguments += ["--warmup-seconds", str(config.warmup_seconds), "--min-seconds", str(config.min_seconds)]
    arguments += ["--min-samples", str(config.min_samples), "--max-seconds", str(config.max_seconds)]
    if config.cpus is not None:
        arguments += ["--cpus", ",".join(map(str, config.cpus))]
    if config.provider is not None:
        arguments += ["--provider", config.provider]
    if config.memory_mb is not None:
        arguments += ["--memory", str(config.memory_mb)]
    return arguments


def measure_onnx(model: bytes, config: ProfileConfig, *, limits: Limits | None = None) -> Measurement:
    """Measure a model, given as bytes, in a child process on this host.

    Args:
        model: an ONNX file, or one that the runner knows another runtime for.
        config: threads, batch size and how long to measure.
        limits: for a model of unknown origin; its seconds come on top of those of the measurement.

    Raises:
        ExportError: onnxruntime cannot load or run the model, or takes too long.
    """
    under = [] if limits is None else limits.command(extra_seconds=config.threads * config.max_seconds)
    arguments, timeout = runner_arguments(config), config.max_seconds + _GRACE_SECONDS
    return parse_measurement(_call(model, arguments, timeout=timeout, under=under))


def compare_onnx(model: bytes, baseline: bytes, config: ProfileConfig, *, seed: int = 0) -> Comparison:
    """Time two models in random blocks, the second in two sessions, whose difference is the A/A floor.

    Raises:
        ExportError: onnxruntime cannot load or run one of them, or takes too long.
    """
    arguments = [*runner_arguments(config), "--seed", str(seed)]
    output = _call(model, arguments, against=baseline, timeout=config.max_seconds + _GRACE_SECONDS)
    return Comparison.from_json(output, "the device runner's comparison cannot be read", ExportError)


def parse_measurement(text: str) -> Measurement:
    """Read the runner's document, which may come from a device that is not to be trusted.

    Its percentiles are computed again from its samples.

    Raises:
        ExportError: it is not one, or contradicts its samples.
    """
    found = Measurement.from_json(text, "the device runner's result cannot be read", ExportError)
    latency, samples = found.latency, found.latency.samples_ms
    percentiles = tuple(Percentile.model_validate(entry) for entry in percentiles_of(samples))
    said, computed = (
        {entry.fraction: entry.value_ms for entry in given} for given in (latency.percentiles, percentiles)
    )
    if said != computed:
        raise ExportError("the device runner's result contradicts itself: its percentiles are not those of its samples")
    low, high = latency.p50_range_ms or (min(samples), max(samples))
    if not min(samples) <= low <= high <= max(samples):
        raise ExportError("the device runner's result contradicts itself: its p50 lies outside of its samples")
    if latency.contended != bool(latency.reasons):
        raise ExportError("the device runner's result contradicts itself: whether it is valid, and why not")
    # Which sample is a bound depends on the device's mathematics library: here it is this one's.
    return found.model_copy(update={"latency": latency.model_copy(update={"percentiles": percentiles})})


def _call(
    model: bytes, arguments: list[str], *, timeout: float, against: bytes | None = None, under: Sequence[str] = ()
) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / RUNNER_NAME).write_bytes(runner_archive())
        path = _write(folder / "model", model)
        command = [*under, sys.executable, str(folder / RUNNER_NAME), str(path), *arguments]
        if against is not None:
            command += ["--against", str(_write(folder / "against", against))]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, cwd=folder)
        except subprocess.TimeoutExpired as error:
            raise ExportError(f"the runtime did not finish within {timeout:.0f} s") from error
    if done.returncode != 0:
        cause = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"ended with {done.returncode}"
        raise ExportError(f"the runtime cannot run the model: {cause}")
    return done.stdout


def _write(path: Path, model: bytes) -> Path:
    # onnxruntime tells its own format by the name of the file.
    named = path.with_suffix(".ort" if is_ort(model) else ".onnx")
    named.write_bytes(model)
    return named
