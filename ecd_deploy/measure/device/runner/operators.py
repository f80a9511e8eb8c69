"""What onnxruntime does with a model: the time of each operator, where it runs, and how much it multiplies."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

from .sessions import CPU, fixed_batch, images_for, open_session, providers_of

_TIMED_RUNS = 30
_ENDING = "_kernel_time"


def operators_of(model: str | bytes, threads: int, provider: str | None) -> list[dict[str, Any]]:
    """Median time of each operator as onnxruntime runs it, after its fusions.

    Raises:
        RuntimeError: the provider was loaded and given nothing to do, which onnxruntime says to nobody.
    """
    times: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}
    providers: dict[str, str] = {}
    for event in _profile(model, threads, provider, runs=_TIMED_RUNS, optimise=True):
        name = event["name"][: -len(_ENDING)]
        times.setdefault(name, []).append(event["dur"])
        kinds[name] = event["args"]["op_name"]
        providers[name] = event["args"]["provider"]
    wanted = providers_of(provider)[0][0]
    if wanted not in providers.values():
        raise RuntimeError(f"{wanted} runs no operator of this model: onnxruntime gives all {len(times)} to the CPU")
    return [
        {"name": name, "kind": kinds[name], "provider": providers[name], "median_us": statistics.median(times[name])}
        for name in times
    ]


def graph_macs(path: str, threads: int, provider: str | None) -> list[dict[str, Any]]:
    """Multiply-accumulates of each operator of the graph as it was written, for one image."""
    entries = []
    for event in _profile(path, threads, provider, runs=1, optimise=False):
        macs = _macs(event["args"])
        if macs:
            entries.append({"name": event["name"][: -len(_ENDING)], "macs": macs})
    return entries


def provider_difference(path: str, threads: int, provider: str | None, batch_size: int) -> float | None:
    """Of the provider's scores from the CPU's, on the images that are timed; None on the CPU.

    Raises:
        RuntimeError: the provider's are not finite, and the CPU's are.
    """
    import numpy as np

    wanted = providers_of(provider)[0][0]
    if wanted == CPU:
        return None
    scores = []
    for where in (provider, None):
        session = open_session(path, threads, where)
        results = session.run(None, images_for(session, batch_size))
        scores.append(np.concatenate([np.ravel(result).astype(np.float64) for result in results]))
    found, expected = scores
    if np.isfinite(expected).all() and not np.isfinite(found).all():
        raise RuntimeError(f"{wanted} gives scores that are not finite")
    return float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-12))


def _profile(
    model: str | bytes, threads: int, provider: str | None, *, runs: int, optimise: bool
) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(model, threads, provider, profile=str(Path(folder) / "profile"), optimise=optimise)
        images = images_for(session, fixed_batch(session) or 1)
        for _ in range(runs):
            session.run(None, images)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return [event for event in events if event.get("cat") == "Node" and event["name"].endswith(_ENDING)]


def _macs(node: dict[str, Any]) -> int:
    kind = node["op_name"]
    inputs = [next(iter(entry.values())) for entry in node["input_type_shape"]]
    output: list[int] = next(iter(node["output_type_shape"][0].values()))
    if kind in ("Conv", "ConvInteger", "ConvTranspose", "QLinearConv"):
        weight: list[int] = inputs[3 if kind == "QLinearConv" else 1]
        outer: list[int] = inputs[0] if kind == "ConvTranspose" else output
        return math.prod(outer) * math.prod(weight[1:])
    if kind in ("Gemm", "QGemm", "MatMul", "MatMulInteger", "QLinearMatMul"):
        return math.prod(output) * int(inputs[0][-1])
    return 0
