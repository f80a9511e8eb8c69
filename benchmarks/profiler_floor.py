"""How far the profiler departs from itself: one model measured against itself, in turns and one run after the other.

The model is an untrained ResNet-20 for CIFAR-100 at batch 1, one thread. Each round has two runs of the profiler
and one comparison in random blocks. A round on a busy host is kept in `raw` but counts in no figure. Without
three quiet rounds there are no ratios: the result is inconclusive.
"""

from __future__ import annotations

import statistics

import torch

from benchmarks.figures import Figure, Report
from ecd_deploy.distill import PlainModel
from ecd_deploy.exporters import ArtefactMetadata, OnnxExporter
from ecd_deploy.gate_config import ProfileConfig
from ecd_deploy.measure.latency import compare_onnx, measure_onnx
from ecd_deploy.models import build_student
from ecd_deploy.split import split_student

_ROUNDS = 6
_CONFIG = ProfileConfig(min_seconds=4.0)
_LARGEST = 2.0
_FEWEST_QUIET = 3


def measure() -> Report:
    """Measure the rounds; take the quiet ones."""
    model = _model()
    rounds = [_round(model, seed) for seed in range(_ROUNDS)]
    quiet = [entry for entry in rounds if not entry["contended"]]
    figures = [Figure(name="profiler A/A: quiet rounds", value=len(quiet), better="higher", unit=f"of {_ROUNDS}")]
    if len(quiet) >= _FEWEST_QUIET:
        for name in ("in turns", "one after the other"):
            worst = max(100 * abs(entry[name] - 1) for entry in quiet)
            median = statistics.median(100 * abs(entry[name] - 1) for entry in quiet)
            title = f"profiler A/A, p50 {name}"
            figures.append(Figure(name=f"{title}: worst", value=worst, better="lower", must=_LARGEST, unit="%"))
            figures.append(Figure(name=f"{title}: median", value=median, better="lower", unit="%"))
    setting = {
        "model": "resnet20, 100 classes, 3x32x32, batch 1",
        "threads": _CONFIG.threads,
        "seconds": _CONFIG.min_seconds,
        "conclusive": len(quiet) >= _FEWEST_QUIET,
    }
    return Report(benchmark="profiler_floor", figures=figures, setting=setting, raw={"rounds": rounds})


def _round(model: bytes, seed: int) -> dict[str, float]:
    first, second = (measure_onnx(model, _CONFIG).latency for _ in range(2))
    comparison = compare_onnx(model, model, _CONFIG, seed=seed)
    medians = [statistics.median(session.block_p50_ms) for session in comparison.sessions]
    p50 = [latency.at(0.5).value_ms or 0.0 for latency in (first, second)]
    return {
        "in turns": medians[2] / medians[1],
        "one after the other": p50[1] / p50[0],
        "first_p50_ms": p50[0],
        "second_p50_ms": p50[1],
        "contended": float(first.contended or second.contended or comparison.host.contended),
        "least_cpu_over_wall": min(first.cpu_over_wall, second.cpu_over_wall, comparison.host.cpu_over_wall),
    }


def _model() -> bytes:
    torch.manual_seed(0)
    student = split_student(PlainModel(build_student("resnet20", num_classes=100)), torch.randn(2, 3, 32, 32))
    metadata = ArtefactMetadata(
        student="resnet20",
        classes=tuple(map(str, range(100))),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        input_shape=(3, 32, 32),
        recipe_digest="0" * 64,
    )
    return OnnxExporter().export(student, metadata)
