from __future__ import annotations

from ecd_deploy.measure.latency.measurement import ColdStart, Latency, MeasuredModel, Measurement, MeasuringRuntime
from ecd_deploy.pipelines.record.profile import Profile


def profiled(file: str, sha256: str, latency: Latency, *, place: str = "host", peak_memory_mb: float = 70.0) -> Profile:
    """A profile with a chosen latency, for tests that judge it."""
    cold = ColdStart(process_to_result_ms=150.0, load_ms=1.0, first_run_ms=1.0, peak_memory_mb=peak_memory_mb)
    runtime = MeasuringRuntime(
        python="3.11.0", onnxruntime="1.32.0", numpy="2.4.0", system="Linux", machine="x86_64", processor="a processor"
    )
    measurement = Measurement(
        schema_version=1,
        model=MeasuredModel(sha256=sha256, bytes=500, input_shape=(1, 1, 8, 8)),
        runtime=runtime,
        cpus=(0,),
        memory_limit_mb=None,
        constrained=False,
        latency=latency,
        cold_start=cold,
        throughput=(),
        operators=(),
        graph_macs=(),
        peak_gflops=100.0,
    )
    return Profile(file=file, sha256=sha256, place=place, measurement=measurement)
