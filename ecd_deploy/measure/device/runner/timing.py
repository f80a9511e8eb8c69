"""Timing work again and again: no sample is removed, and a fixed product shows how fast the host was meanwhile."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

from .host import disturbance, readings
from .percentiles import median_range, percentiles_of

if TYPE_CHECKING:
    from collections.abc import Callable

_STEADY = 0.05
_GEMM_SIZE = 768
_BLOCK_SECONDS = 0.05
_PARTS = 20
_LEAST_PART_SECONDS = 0.005
_REFERENCE_SIZE = 256
_REFERENCE_RUNS = 5


def warm_up(run: Callable[[], object], seconds: float) -> bool:
    """Run until three blocks in a row agree; False where they never do."""
    medians: list[float] = []
    started = time.perf_counter()
    while time.perf_counter() - started < max(5.0, 4 * seconds):
        medians.append(statistics.median(block(run)))
        last = medians[-3:]
        steady = len(last) == 3 and max(last) <= (1 + _STEADY) * min(last)
        if time.perf_counter() - started >= seconds and (steady or seconds == 0):
            return True
    return False


def block(run: Callable[[], object]) -> list[float]:
    """Milliseconds of each run in a twentieth of a second, of three at least."""
    samples: list[float] = []
    end = time.perf_counter() + _BLOCK_SECONDS
    while time.perf_counter() < end or len(samples) < 3:
        started = time.perf_counter()
        run()
        samples.append((time.perf_counter() - started) * 1e3)
    return samples


def sample(
    run: Callable[[], object], *, warmup_seconds: float, min_seconds: float, max_seconds: float, min_samples: int
) -> dict[str, Any]:
    """Time runs in parts; between two parts a fixed product shows how fast the host is at that moment."""
    settled = warm_up(run, warmup_seconds)
    product = _reference()
    samples: list[float] = []
    medians: list[float] = []
    references: list[float] = []
    before = readings()
    started = now = time.perf_counter()
    while now - started < max_seconds and (now - started < min_seconds or len(samples) < min_samples):
        references.append(product())
        run()  # not counted: the product has taken the caches
        part: list[float] = []
        now = time.perf_counter()
        end = min(now + max(min_seconds / _PARTS, _LEAST_PART_SECONDS), started + max_seconds)
        while not part or now < end:
            last = time.perf_counter()
            run()
            now = time.perf_counter()
            part.append(round((now - last) * 1e3, 4))
        samples += part
        medians.append(statistics.median(part))
    host = disturbance(before, readings(), settled)
    return {
        "percentiles": percentiles_of(samples),
        "p50_range_ms": median_range(medians),
        "reference_ms": round(statistics.median(references), 5),
        **host,
        "samples_ms": samples,
    }


def peak_gflops() -> float:
    """Best rate of numpy's float32 matrix product with the same threads: what this host can reach."""
    import numpy as np

    left = np.random.default_rng(0).standard_normal((_GEMM_SIZE, _GEMM_SIZE), dtype=np.float32)
    best = min(min(block(lambda: left @ left)) for _ in range(6))
    return round(2 * _GEMM_SIZE**3 / best / 1e6, 2)


def _reference() -> Callable[[], float]:
    """A function that times a matrix product, always the same, in milliseconds."""
    import numpy as np

    left = np.random.default_rng(0).standard_normal((_REFERENCE_SIZE, _REFERENCE_SIZE), dtype=np.float32)

    def time_product() -> float:
        times: list[float] = []
        for _ in range(_REFERENCE_RUNS):
            started = time.perf_counter()
            left @ left
            times.append((time.perf_counter() - started) * 1e3)
        return statistics.median(times)

    return time_product
