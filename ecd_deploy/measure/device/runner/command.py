"""The runner's command line, and the one JSON document that it prints: a measurement, or a comparison."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .host import cpus, disturbance, peak_mb, processor, readings, resource
from .operators import graph_macs, operators_of, provider_difference
from .runtimes import ONNXRUNTIME, import_runtime, load, runtime_of, version_of
from .sessions import CPU, fixed_batch, open_session, providers_of
from .timing import block, peak_gflops, sample, warm_up

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA_VERSION = 1
_COLD_STARTS = 3
# The folder or the archive that holds the runner.
_HOME = str(Path(__file__).parents[1])
_AGAIN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from runner.command import main; sys.exit(main())"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the command line says, and print one JSON document."""
    options = _parse(arguments)
    try:
        _constrain(options)
        if options.first_result:
            document = _first_result(options)
        elif options.against is not None:
            document = compare(options)
        else:
            document = measure(options)
    except Exception as error:  # noqa: BLE001 - the caller reads one line, on a device no traceback helps
        print(f"{type(error).__name__}: {error}".replace("\n", " "), file=sys.stderr)  # noqa: T201
        return 4
    print(json.dumps(document, separators=(",", ":")), flush=True)  # noqa: T201
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Cold start, latency, throughput, operators and the arithmetic rate of one model."""
    import numpy as np

    model, runtime = Path(options.model).read_bytes(), runtime_of(options.model)
    asked = options.model, options.threads, options.provider
    by_onnxruntime = runtime == ONNXRUNTIME
    cold = _cold_start(options)
    operators = operators_of(*asked) if by_onnxruntime else []
    work = load(*asked)(options.batch_size)
    latency = sample(
        work.run,
        warmup_seconds=options.warmup_seconds,
        min_seconds=options.min_seconds,
        max_seconds=options.max_seconds,
        min_samples=options.min_samples,
    )
    latency.update(
        threads=options.threads,
        batch_size=options.batch_size,
        load_ms=cold["load_ms"],
        first_run_ms=cold["first_run_ms"],
    )
    return {
        "schema_version": SCHEMA_VERSION,
        "model": {"sha256": hashlib.sha256(model).hexdigest(), "bytes": len(model), "input_shape": work.shape},
        "runtime": {
            "python": platform.python_version(),
            "onnxruntime": _onnxruntime_version() if by_onnxruntime else "not used",
            "numpy": np.__version__,
            "system": platform.system(),
            "machine": platform.machine(),
            "processor": processor(),
        },
        "cpus": cpus(),
        "memory_limit_mb": options.memory,
        "constrained": options.cpus is not None or options.memory is not None,
        "latency": latency,
        "cold_start": cold,
        "throughput": [_throughput(options, size) for size in options.batches],
        "operators": operators,
        "provider": providers_of(options.provider)[0][0] if by_onnxruntime else version_of(runtime),
        "on_cpu": sorted(entry["name"] for entry in operators if entry.pop("provider") == CPU),
        "provider_difference": provider_difference(*asked, options.batch_size) if by_onnxruntime else None,
        "graph_macs": graph_macs(*asked) if by_onnxruntime else [],
        "peak_gflops": peak_gflops(),
    }


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Time the model and another one in random blocks, with a second session of the other as the A/A floor."""
    names = ("candidate", "baseline", "baseline_again")
    paths = (options.model, options.against, options.against)
    runs = [load(path, options.threads, options.provider)(options.batch_size).run for path in paths]
    settled = [warm_up(run, options.warmup_seconds) for run in runs]
    blocks: list[list[float]] = [[] for _ in runs]
    generator = random.Random(options.seed)
    before, started = readings(), time.perf_counter()
    while time.perf_counter() - started < options.min_seconds or len(blocks[0]) < options.blocks:
        if time.perf_counter() - started > options.max_seconds:
            break
        order = list(range(len(runs)))
        generator.shuffle(order)
        for index in order:
            blocks[index].append(round(statistics.median(block(runs[index])), 5))
    host = disturbance(before, readings(), all(settled))
    sessions = [{"name": name, "block_p50_ms": blocks[index]} for index, name in enumerate(names)]
    return {"schema_version": SCHEMA_VERSION, "threads": options.threads, "sessions": sessions, "host": host}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="runner", description="Latency of a model on this machine, as JSON.")
    parser.add_argument("model", help="ONNX file whose inputs have a free or fixed first dimension")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpus", type=_numbers, help="pin to these CPUs, for example 0,1")
    parser.add_argument("--memory", type=int, metavar="MB", help="limit on the data of the process")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--batches", type=_numbers, default=[1, 8, 32], help="batch sizes for the throughput")
    parser.add_argument("--warmup-seconds", type=float, default=0.5)
    parser.add_argument("--min-seconds", type=float, default=2.0)
    parser.add_argument("--min-samples", type=int, default=500)
    parser.add_argument("--max-seconds", type=float, default=60.0)
    parser.add_argument("--against", help="compare with this model in random blocks; the model itself for an A/A run")
    parser.add_argument("--blocks", type=int, default=40, help="least blocks of a comparison")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the blocks")
    parser.add_argument("--first-result", action="store_true", help="load, run once and say how long it took")
    parser.add_argument("--provider", metavar="NAME[:KEY=VALUE,...]", help="of onnxruntime; default: the CPU's")
    return parser.parse_args(arguments)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def _constrain(options: argparse.Namespace) -> None:
    """Before numpy and onnxruntime are loaded: their thread pools ask once."""
    if options.cpus is not None:
        if not hasattr(os, "sched_setaffinity"):
            raise OSError("this system pins no process: leave --cpus out")
        os.sched_setaffinity(0, options.cpus)
    if options.memory is not None and resource is None:
        raise OSError("this system limits no memory: leave --memory out")
    if options.memory is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (options.memory * 1_000_000, options.memory * 1_000_000))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(options.threads)


def _onnxruntime_version() -> str:
    import onnxruntime as ort

    return str(ort.__version__)  # its distribution has other names: onnxruntime-gpu, onnxruntime-openvino


def _cold_start(options: argparse.Namespace) -> dict[str, Any]:
    """Medians of fresh processes, from their start to their first result; the files are in the disk cache."""
    command = [sys.executable, "-c", _AGAIN, _HOME, options.model, "--first-result"]
    command += ["--threads", str(options.threads), "--batch-size", str(options.batch_size)]
    if options.memory is not None:
        command += ["--memory", str(options.memory)]
    if options.provider is not None:
        command += ["--provider", options.provider]
    rows = []
    for _ in range(_COLD_STARTS):
        started = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = child.stdout.readline() if child.stdout else ""
        elapsed = (time.perf_counter() - started) * 1e3
        _, error = child.communicate()
        if child.returncode != 0:
            raise RuntimeError(error.strip().splitlines()[-1] if error.strip() else f"killed: {child.returncode}")
        rows.append({"process_to_result_ms": elapsed, **json.loads(line)})
    return {name: round(statistics.median(row[name] for row in rows), 4) for name in rows[0]}


def _first_result(options: argparse.Namespace) -> dict[str, Any]:
    import_runtime(runtime_of(options.model))
    started = time.perf_counter()
    loaded = load(options.model, options.threads, options.provider)
    ended = time.perf_counter()
    work = loaded(options.batch_size)
    ready = time.perf_counter()
    work.run()
    done = time.perf_counter()
    return {"load_ms": (ended - started) * 1e3, "first_run_ms": (done - ready) * 1e3, "peak_memory_mb": peak_mb()}


def _throughput(options: argparse.Namespace, batch_size: int) -> dict[str, Any]:
    if runtime_of(options.model) == ONNXRUNTIME:
        fixed = fixed_batch(open_session(options.model, options.threads, options.provider))
        if fixed is not None and fixed != batch_size:
            return {"batch_size": batch_size, "images_per_second": None}
    run = load(options.model, options.threads, options.provider)(batch_size).run
    block(run)
    best = min(statistics.median(block(run)) for _ in range(5))
    return {"batch_size": batch_size, "images_per_second": round(batch_size / best * 1e3, 2)}
