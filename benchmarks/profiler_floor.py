"""How far the profiler diverges from itself: one model measured against itself, in turns and by separate runs.

The model is an untrained ResNet-20 for CIFAR-100 at batch 1, one thread. In turns is what the gate does: two sessions
of the model in random blocks, whose ratio is the A/A floor. Separate runs are what two calls of `profile` are: each
run is set against each other one, and a pair counts where the profiler itself calls the two comparable. The others
are inconclusive: a virtual machine gets slower and faster by its neighbours. So is a comparison in turns whose floor
is above the margin, as in the gate. All of them are kept in `raw`.
"""

from __future__ import annotations

import itertools
import statistics
from typing import Any

import torch

from benchmarks.figures import Figure, Report
from benchmarks.untrained import metadata_of
from ecd_deploy.distill import PlainModel
from ecd_deploy.exporters import ExportInput, OnnxExporter
from ecd_deploy.measure.latency.measurement import Latency, compare_onnx, measure_onnx
from ecd_deploy.measure.latency.steadiness import P50_TOLERANCE, why_not_comparable
from ecd_deploy.models import build_student
from ecd_deploy.recipe.profile import ProfileConfig
from ecd_deploy.split import split_student

_COMPARISONS = 6
_RUNS = 16
_CONFIG = ProfileConfig(min_seconds=4.0)


def measure() -> Report:
    """Measure in turns and by separate runs, alternating; set each run against each other one."""
    model = _model()
    runs: list[Latency] = []
    in_turns: list[float] = []
    for index in range(_RUNS):
        runs.append(measure_onnx(model, _CONFIG).latency)
        if len(in_turns) < _COMPARISONS * (index + 1) // _RUNS:
            in_turns.append(_in_turns(model, index))
    pairs = [_pair(first, second) for first, second in itertools.combinations(runs, 2)]
    comparable = [pair["ratio"] for pair in pairs if pair["not_comparable_because"] is None]
    total = f"of {len(pairs)} pairs"
    figures = [
        Figure(
            name=f"profiler A/A, in turns: floor within {100 * P50_TOLERANCE:g} %, the others are inconclusive",
            value=sum(_divergence(ratio) <= 100 * P50_TOLERANCE for ratio in in_turns),
            better="higher",
            unit=f"of {len(in_turns)}",
        ),
        *_worst_and_median(in_turns, "in turns", None),
        Figure(name="profiler A/A, separate runs: comparable", value=len(comparable), better="higher", unit=total),
        *_worst_and_median(comparable, "comparable separate runs", 100 * P50_TOLERANCE),
        Figure(
            name="profiler A/A, p50, all separate runs: worst, the inconclusive ones with them",
            value=max(_divergence(pair["ratio"]) for pair in pairs),
            better="lower",
            unit="%",
        ),
    ]
    setting = {
        "model": "resnet20, 100 classes, 3x32x32, batch 1",
        "threads": _CONFIG.threads,
        "seconds": _CONFIG.min_seconds,
        "conclusive": bool(comparable),
    }
    raw = {"in_turns": in_turns, "runs": [_run(run) for run in runs], "pairs": pairs}
    return Report(benchmark="profiler_floor", figures=figures, setting=setting, raw=raw)


def _worst_and_median(ratios: list[float], which: str, must: float | None) -> list[Figure]:
    if not ratios:
        return []
    divergences = [_divergence(ratio) for ratio in ratios]
    title = f"profiler A/A, p50, {which}"
    return [
        Figure(name=f"{title}: worst", value=max(divergences), better="lower", must=must, unit="%"),
        Figure(name=f"{title}: median", value=statistics.median(divergences), better="lower", unit="%"),
    ]


def _divergence(ratio: float) -> float:
    """Of a ratio from 1, in percent."""
    return 100 * abs(ratio - 1)


def _in_turns(model: bytes, seed: int) -> float:
    sessions = compare_onnx(model, model, _CONFIG, seed=seed).sessions
    return statistics.median(sessions[2].block_p50_ms) / statistics.median(sessions[1].block_p50_ms)


def _pair(first: Latency, second: Latency) -> dict[str, Any]:
    return {"ratio": _p50(second) / _p50(first), "not_comparable_because": why_not_comparable(first, second)}


def _p50(latency: Latency) -> float:
    value = latency.at(0.5).value_ms
    if value is None:
        raise RuntimeError("a run of seconds has too few samples for a median")
    return value


def _run(latency: Latency) -> dict[str, Any]:
    return {
        "p50_ms": _p50(latency),
        "p50_range_ms": latency.p50_range_ms,
        "reference_ms": latency.reference_ms,
        "cpu_over_wall": latency.cpu_over_wall,
        "contended": latency.contended,
    }


def _model() -> bytes:
    torch.manual_seed(0)
    student = split_student(PlainModel(build_student("resnet20", num_classes=100)), torch.randn(2, 3, 32, 32))
    return OnnxExporter().export(ExportInput(student, metadata_of("resnet20", 100, (3, 32, 32))))
