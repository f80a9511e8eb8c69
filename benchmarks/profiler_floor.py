"""How far the profiler departs from itself: one model measured against itself, in turns and one run after the other.

The model is an untrained ResNet-20 for CIFAR-100 at batch 1, one thread. Each round has two runs of the profiler
and one comparison in random blocks, whose ratio is the A/A floor. As in the gate, a floor above the margin makes a
round inconclusive: a virtual machine gets slower and faster by its neighbours, which nothing inside it can see. Such
rounds, and those on a busy host, are counted and kept in `raw`. Without three others the result is inconclusive.
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
_MARGIN = 2.0
_FEWEST = 3
_OF = f"of {_ROUNDS}"


def measure() -> Report:
    """Measure the rounds; take the quiet ones."""
    model = _model()
    rounds = [_round(model, seed) for seed in range(_ROUNDS)]
    calm = [entry for entry in rounds if not entry["contended"]]
    conclusive = [entry for entry in calm if _departure(entry, "in turns") <= _MARGIN]
    figures = [
        Figure(name="profiler A/A: rounds on a host that was not busy", value=len(calm), better="higher", unit=_OF),
        Figure(
            name=f"profiler A/A: of them with a floor within {_MARGIN:g} %, the others are inconclusive",
            value=len(conclusive),
            better="higher",
            unit=_OF,
        ),
        *_worst_and_median(calm, "in turns", "all that were not busy", None),
        *_worst_and_median(calm, "one after the other", "all that were not busy", None),
    ]
    if len(conclusive) >= _FEWEST:
        figures += _worst_and_median(conclusive, "one after the other", "conclusive rounds", _MARGIN)
    setting = {
        "model": "resnet20, 100 classes, 3x32x32, batch 1",
        "threads": _CONFIG.threads,
        "seconds": _CONFIG.min_seconds,
        "conclusive": len(conclusive) >= _FEWEST,
    }
    return Report(benchmark="profiler_floor", figures=figures, setting=setting, raw={"rounds": rounds})


def _departure(entry: dict[str, float], name: str) -> float:
    """Of a ratio from 1, in percent."""
    return 100 * abs(entry[name] - 1)


def _worst_and_median(entries: list[dict[str, float]], name: str, which: str, must: float | None) -> list[Figure]:
    if not entries:
        return []
    departures = [_departure(entry, name) for entry in entries]
    title = f"profiler A/A, p50 {name}, {which}"
    return [
        Figure(name=f"{title}: worst", value=max(departures), better="lower", must=must, unit="%"),
        Figure(name=f"{title}: median", value=statistics.median(departures), better="lower", unit="%"),
    ]


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
