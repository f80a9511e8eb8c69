"""What a person reads of a profile in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ecd_deploy.measure.latency.measurement import CPU, Measurement
from ecd_deploy.measure.latency.steadiness import why_unsteady
from ecd_deploy.pipelines.device.budgets import Device
from ecd_deploy.pipelines.record.profile import Profile

_MOST_LAYERS = 12


def print_profile(profile: Profile, console: Console) -> None:
    """Print percentiles, cold start, memory, throughput, arithmetic rate and the slowest layers."""
    measurement, latency = profile.measurement, profile.latency
    runtime = measurement.runtime
    console.print(
        f"{profile.file} on the {profile.place}: {runtime.processor}, {latency.threads} thread(s), "
        f"CPUs {','.join(map(str, measurement.cpus))}, onnxruntime {runtime.onnxruntime}, Python {runtime.python}"
    )
    table = Table("percentile", "latency", "upper bound (99 %)", box=None, header_style="bold")
    for entry in latency.percentiles:
        name = f"p{entry.fraction * 100:.0f}"
        if entry.value_ms is None:
            table.add_row(name, f"not given: {entry.samples_needed} samples needed", "-")
        else:
            table.add_row(name, f"{entry.value_ms:.4f} ms", _milliseconds(entry.upper_bound_ms))
    console.print(table)
    if not measurement.operators:
        console.print(f"run by {measurement.provider}, one image at a time")
    elif measurement.provider != CPU:
        fallen = measurement.on_cpu
        names = f": {', '.join(fallen[:_MOST_LAYERS])}{' and more' * (len(fallen) > _MOST_LAYERS)}" if fallen else ""
        operators = len(measurement.operators)
        console.print(f"{measurement.provider}: {len(fallen)} of {operators} operators fell back to the CPU{names}")
        if (difference := measurement.provider_difference) is not None:
            console.print(f"scores differ from the CPU's by at most {difference:.2g} of the largest one, on noise")
    if unsteady := why_unsteady(latency):
        console.print(Text.assemble(("the p50 is inconclusive", "yellow"), f": {unsteady}"))
    for line in _facts(measurement):
        console.print(line)
    slowest = sorted(profile.layers, key=lambda layer: -layer.median_us)[:_MOST_LAYERS]
    table = Table("slowest layers", "time", "MACs", box=None, header_style="bold")
    for layer in slowest:
        table.add_row(layer.name, f"{layer.median_us:.1f} us", f"{layer.macs:,}")
    if slowest:
        console.print(table)


def _facts(measurement: Measurement) -> list[str]:
    latency, cold = measurement.latency, measurement.cold_start
    rates = [
        f"{entry.images_per_second:,.0f} at batch {entry.batch_size}"
        for entry in measurement.throughput
        if entry.images_per_second is not None
    ]
    rate = "-" if measurement.gflops is None else f"{measurement.gflops:.1f} GFLOP/s"
    samples = (
        f"samples: {len(latency.samples_ms)}, none removed; CPU over wall time {latency.cpu_over_wall:.2f}, "
        f"{latency.involuntary_switches} involuntary switches"
    )
    start = (
        f"cold start: {cold.process_to_result_ms:.0f} ms from process to result, load {cold.load_ms:.1f} ms, "
        f"first run {cold.first_run_ms:.2f} ms"
    )
    memory = "unknown" if cold.peak_memory_mb is None else f"{cold.peak_memory_mb:.0f} MB"
    return [
        samples,
        start,
        f"peak memory: {memory} with Python and onnxruntime",
        f"images per second: {', '.join(rates)}",
        f"{measurement.macs:,} MACs per image, {rate} of {measurement.peak_gflops:.0f} that a matrix product reaches",
    ]


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f} ms"


def print_budget(profile: Profile, device: Device, console: Console) -> None:
    """Compare a profile with what a device allows; only a measurement on that device decides."""
    p90, budget = profile.latency.at(0.9).upper_bound_ms, device.budget
    if profile.place != device.name:
        console.print(f"measured on the {profile.place}, not on {device.name}: a first estimate at most")
    lines = (
        ("p90 upper bound", p90, budget.p90_ms, "ms"),
        ("size", profile.measurement.model.bytes / 1e6, budget.size_mb, "MB"),
        ("peak memory", profile.measurement.cold_start.peak_memory_mb, budget.peak_memory_mb, "MB"),
    )
    for name, value, limit, unit in lines:
        within = value is not None and value <= limit
        shown = "-" if value is None else f"{value:.3g}"
        console.print(f"{name}: {shown} of {limit:g} {unit}: {'within' if within else 'beyond'} {device.name}'s budget")
