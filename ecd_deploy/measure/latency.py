"""Latency of an ONNX model with onnxruntime: warm-up, enough samples, no sample removed.

Percentiles are given only where the samples suffice (MLPerf LoadGen's rule), each with an upper
confidence bound. A run that shared its processor is marked contended, not slow.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ecd_deploy.config import ProfileConfig
from ecd_deploy.errors import ExportError
from ecd_deploy.measure.statistics import percentile, percentile_upper_bound, samples_needed

_LEAST_CPU_OVER_WALL = 0.9


class Percentile(BaseModel):
    """One percentile of the latency in milliseconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fraction: float
    value_ms: float | None
    """None where the samples are too few."""
    upper_bound_ms: float | None
    """At 99 % confidence; None where the samples are too few."""
    samples_needed: int


class Latency(BaseModel):
    """What one process measured on one host; raw samples are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int
    batch_size: int
    load_ms: float
    first_run_ms: float
    percentiles: tuple[Percentile, ...]
    cpu_over_wall: float
    """CPU time over wall time of the sampled runs; well below the thread count on a busy host."""
    involuntary_switches: int
    contended: bool
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


def measure_onnx_latency(model: bytes, image_shape: tuple[int, int, int], config: ProfileConfig) -> Latency:
    """Time an ONNX model given as bytes.

    Args:
        model: a model with one input of shape (batch, C, H, W).
        image_shape: (C, H, W).
        config: threads, batch size and how long to measure.

    Raises:
        ExportError: onnxruntime cannot load or run the model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    images = np.random.default_rng(0).standard_normal((config.batch_size, *image_shape), dtype=np.float32)
    try:
        started = time.perf_counter()
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        load_ms = _milliseconds_since(started)
        run = _runner(session, images)
        started = time.perf_counter()
        run()
        first_run_ms = _milliseconds_since(started)
        _warm_up(run, config.warmup_seconds)
        return _sample(run, config, load_ms, first_run_ms)
    except Exception as error:
        raise ExportError(f"onnxruntime cannot run the model: {error}") from error


def _runner(session: onnxruntime.InferenceSession, images: NDArray[np.float32]) -> Callable[[], object]:
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: images})


def _warm_up(run: Callable[[], object], seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        run()


def _sample(run: Callable[[], object], config: ProfileConfig, load_ms: float, first_run_ms: float) -> Latency:
    samples: list[float] = []
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    cpu_started, wall_started = time.process_time(), time.perf_counter()
    now = wall_started
    while now - wall_started < config.max_seconds and (
        now - wall_started < config.min_seconds or len(samples) < config.min_samples
    ):
        before = time.perf_counter()
        run()
        now = time.perf_counter()
        samples.append((now - before) * 1e3)
    wall, cpu = now - wall_started, time.process_time() - cpu_started
    ratio = cpu / wall
    return Latency(
        threads=config.threads,
        batch_size=config.batch_size,
        load_ms=load_ms,
        first_run_ms=first_run_ms,
        percentiles=tuple(_percentile(samples, fraction) for fraction in (0.1, 0.5, 0.9, 0.99)),
        cpu_over_wall=ratio,
        involuntary_switches=resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - switches,
        contended=ratio < _LEAST_CPU_OVER_WALL,
        samples_ms=tuple(samples),
    )


def _percentile(samples: list[float], fraction: float) -> Percentile:
    needed = samples_needed(fraction)
    enough = len(samples) >= needed
    return Percentile(
        fraction=fraction,
        value_ms=percentile(samples, fraction) if enough else None,
        upper_bound_ms=percentile_upper_bound(samples, fraction),
        samples_needed=needed,
    )


def _milliseconds_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
