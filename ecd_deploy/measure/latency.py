"""What the device runner measured, typed, and the runner's call in a child process.

The runner is one file that knows nothing of this package, so that the same code measures here and on a device.
A child process keeps torch's threads and memory out of the figures, and survives a runtime that crashes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Literal

from ecd_deploy.errors import ExportError
from ecd_deploy.recipe.profile import ProfileConfig
from ecd_deploy.records import Record

RUNNER_NAME = "device_runner.py"
_GRACE_SECONDS = 300.0


class _Measured(Record, allow_inf_nan=False):
    """What the device runner writes: finite numbers only."""


class Percentile(_Measured):
    """One percentile of the latency in milliseconds."""

    fraction: float
    value_ms: float | None
    """None where the samples are too few."""
    upper_bound_ms: float | None
    """At 99 % confidence; None where the samples are too few."""
    samples_needed: int


class Host(_Measured):
    """How undisturbed a measurement was."""

    cpu_over_wall: float
    """CPU time over wall time of the measuring thread; well below one on a busy host."""
    process_cpu_over_wall: float | None = None
    """The same of all threads."""
    involuntary_switches: int
    stolen: float | None = None
    """Share of the CPU time that a hypervisor took."""
    mhz: tuple[float | None, float | None] = (None, None)
    """Lowest clock of the CPUs before and after; None where the system does not say."""
    celsius: tuple[float | None, float | None] = (None, None)
    """Highest temperature before and after."""
    contended: bool
    """Whether the measurement is invalid."""
    reasons: tuple[str, ...] = ()
    """Each cause of that."""


class Latency(Host):
    """What one process measured on one host; raw samples are kept, rounded to 0.1 us."""

    threads: int
    batch_size: int
    load_ms: float
    first_run_ms: float
    percentiles: tuple[Percentile, ...]
    p50_range_ms: tuple[float, float] | None = None
    """Where the p50 lies at 95 % confidence by the medians of consecutive parts; None where the parts are too few."""
    reference_ms: float | None = None
    """Median time of a fixed matrix product, taken between the parts: how fast the host was at that time."""
    samples_ms: tuple[float, ...]

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

    process_to_result_ms: float
    load_ms: float
    first_run_ms: float
    peak_memory_mb: float
    """Peak resident memory in 1e6 bytes, Python and onnxruntime included."""


class Throughput(_Measured):
    """Images a second at one batch size; None where the model's batch size is fixed to another."""

    batch_size: int
    images_per_second: float | None


class Operator(_Measured):
    """One operator after onnxruntime's fusions."""

    name: str
    kind: str
    median_us: float


class OperatorMacs(_Measured):
    """Multiply-accumulates of one operator of the graph as written, for one image."""

    name: str
    macs: int


class MeasuredModel(_Measured):
    """The file that was measured."""

    sha256: str
    bytes: int
    input_shape: tuple[int, ...]


class MeasuringRuntime(_Measured):
    """With what and on what it was measured."""

    python: str
    onnxruntime: str
    numpy: str
    system: str
    machine: str
    processor: str


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
    graph_macs: tuple[OperatorMacs, ...]
    peak_gflops: float
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

    name: str
    block_p50_ms: tuple[float, ...]
    """Median latency of each block, in the order of the blocks."""


class Comparison(_Measured):
    """Candidate, baseline and baseline again, timed in random blocks by one process."""

    schema_version: Literal[1]
    threads: int
    sessions: tuple[SessionBlocks, SessionBlocks, SessionBlocks]
    host: Host


def runner_source() -> bytes:
    """The device runner's one file."""
    return (files("ecd_deploy.measure.device") / RUNNER_NAME).read_bytes()


def runner_arguments(config: ProfileConfig) -> list[str]:
    """The runner's options for a `[profile]` section, without the model."""
    arguments = ["--threads", str(config.threads), "--batch-size", str(config.batch_size)]
    arguments += ["--warmup-seconds", str(config.warmup_seconds), "--min-seconds", str(config.min_seconds)]
    arguments += ["--min-samples", str(config.min_samples), "--max-seconds", str(config.max_seconds)]
    if config.cpus is not None:
        arguments += ["--cpus", ",".join(map(str, config.cpus))]
    if config.memory_mb is not None:
        arguments += ["--memory", str(config.memory_mb)]
    return arguments


def measure_onnx(model: bytes, config: ProfileConfig) -> Measurement:
    """Measure a model, given as bytes, in a child process on this host.

    Raises:
        ExportError: onnxruntime cannot load or run the model, or takes too long.
    """
    return parse_measurement(_call(model, runner_arguments(config), timeout=config.max_seconds + _GRACE_SECONDS))


def compare_onnx(model: bytes, baseline: bytes, config: ProfileConfig, *, seed: int = 0) -> Comparison:
    """Time two models in random blocks, the second in two sessions, whose difference is the A/A floor.

    Raises:
        ExportError: onnxruntime cannot load or run one of them, or takes too long.
    """
    arguments = [*runner_arguments(config), "--seed", str(seed)]
    output = _call(model, arguments, against=baseline, timeout=config.max_seconds + _GRACE_SECONDS)
    return Comparison.from_json(output, "the device runner's comparison cannot be read", ExportError)


def parse_measurement(text: str) -> Measurement:
    """Read the runner's document.

    Raises:
        ExportError: it is not one.
    """
    return Measurement.from_json(text, "the device runner's result cannot be read", ExportError)


def _call(model: bytes, arguments: list[str], *, timeout: float, against: bytes | None = None) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / RUNNER_NAME).write_bytes(runner_source())
        path = _write(folder / "model", model)
        command = [sys.executable, str(folder / RUNNER_NAME), str(path), *arguments]
        if against is not None:
            command += ["--against", str(_write(folder / "against", against))]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, cwd=folder)
        except subprocess.TimeoutExpired as error:
            raise ExportError(f"onnxruntime did not finish within {timeout:.0f} s") from error
    if done.returncode != 0:
        cause = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"ended with {done.returncode}"
        raise ExportError(f"onnxruntime cannot run the model: {cause}")
    return done.stdout


def _write(path: Path, model: bytes) -> Path:
    # onnxruntime tells its own format by the name of the file.
    named = path.with_suffix(".ort" if model[4:8] == b"ORTM" else ".onnx")
    named.write_bytes(model)
    return named
