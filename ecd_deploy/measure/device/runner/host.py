"""What the machine is, and how undisturbed it was while something was timed."""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Windows has none: memory and switches between threads are then unknown.
resource: Any = import_module("resource") if find_spec("resource") else None

_LEAST_CPU_OVER_WALL = 0.9
_MOST_STOLEN = 0.05
_MOST_SWITCHES_PER_SECOND = 200.0
_LEAST_FREQUENCY_KEPT = 0.9


def readings() -> dict[str, Any]:
    """Clocks and counters at this moment, for `disturbance`."""
    stolen, ticks = _stolen_ticks()
    frequencies = [_number(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq") for cpu in cpus()]
    heats = [_number(str(path)) for path in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    return {
        "wall": time.perf_counter(),
        "cpu": time.process_time(),
        "thread_cpu": time.thread_time(),
        "switches": 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
        "stolen": stolen,
        "ticks": ticks,
        "mhz": min((value / 1e3 for value in frequencies if value), default=None),
        "celsius": max((value / 1e3 for value in heats if value), default=None),
    }


def disturbance(before: dict[str, Any], after: dict[str, Any], settled: bool) -> dict[str, Any]:
    """How undisturbed the time between two readings was, and each reason why it does not count."""
    wall = after["wall"] - before["wall"]
    ratio = (after["thread_cpu"] - before["thread_cpu"]) / wall
    stolen = (after["stolen"] - before["stolen"]) / max(after["ticks"] - before["ticks"], 1)
    switches = after["switches"] - before["switches"]
    reasons = []
    if ratio < _LEAST_CPU_OVER_WALL:
        reasons.append(f"the measuring thread had the CPU for {ratio:.0%} of the time")
    if switches / wall > _MOST_SWITCHES_PER_SECOND:
        reasons.append(f"{switches / wall:.0f} involuntary context switches per second")
    if stolen > _MOST_STOLEN:
        reasons.append(f"the hypervisor took {stolen:.0%} of the CPU time")
    if before["mhz"] and after["mhz"] and after["mhz"] < _LEAST_FREQUENCY_KEPT * before["mhz"]:
        reasons.append(f"the clock fell from {before['mhz']:.0f} to {after['mhz']:.0f} MHz")
    if not settled:
        reasons.append("the warm-up did not become steady")
    return {
        "cpu_over_wall": ratio,
        "process_cpu_over_wall": (after["cpu"] - before["cpu"]) / wall,
        "involuntary_switches": switches,
        "stolen": stolen,
        "mhz": [before["mhz"], after["mhz"]],
        "celsius": [before["celsius"], after["celsius"]],
        "contended": bool(reasons),
        "reasons": reasons,
    }


def cpus() -> list[int]:
    """Those that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return list(range(os.cpu_count() or 1)) if affinity is None else sorted(affinity(0))


def processor() -> str:
    """Its name, or its architecture where the system does not say."""
    for line in _text("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return _text("/proc/device-tree/model").strip("\0") or platform.machine()


def peak_mb() -> float | None:
    """Most memory that this process has had, in 1e6 bytes; None where the system does not say."""
    for line in _text("/proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 2)
    if resource is None:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
    most: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most * unit / 1e6, 2)


def _stolen_ticks() -> tuple[int, int]:
    fields = [int(field) for field in _text("/proc/stat").split("\n", 1)[0].split()[1:9]]
    return (fields[7], sum(fields)) if len(fields) == 8 else (0, 0)


def _number(path: str) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
