"""Latency of a model on this machine: one file for hosts and devices, with numpy and the model's runtime only.

`python device_runner.py model.onnx` prints one JSON document. A percentile is given only with enough samples
(MLPerf LoadGen's early stopping), no sample is removed, and a run that was disturbed is marked invalid with
its reasons. Runs on Python 3.8 and newer, for devices are not updated often.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnxruntime

# Windows has none: memory and switches between threads are then unknown.
resource: Any = import_module("resource") if find_spec("resource") else None

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before onnxruntime is imported, here and in every child process

SCHEMA_VERSION = 1
FRACTIONS = (0.1, 0.5, 0.9, 0.95, 0.99)
_CONFIDENCE = 0.99
_COLD_STARTS = 3
_LEAST_CPU_OVER_WALL = 0.9
_MOST_STOLEN = 0.05
_MOST_SWITCHES_PER_SECOND = 200.0
_LEAST_FREQUENCY_KEPT = 0.9
_STEADY = 0.05
_GEMM_SIZE = 768
_BLOCK_SECONDS = 0.05
_PARTS = 20
_LEAST_PART_SECONDS = 0.005
_REFERENCE_SIZE = 256
_REFERENCE_RUNS = 5
_CPU = "CPUExecutionProvider"
_ONNXRUNTIME = "onnxruntime"
# Runtimes: what their file begins with or, as a zip, holds; the module and the package that run it.
_SIGNATURES = {b"TFL3": "litert", b"ET12": "executorch"}
_MEMBERS = {"student.ncnn.param": "ncnn", "student.xml": "openvino", "constants.pkl": "libtorch"}
_MODULES = {_ONNXRUNTIME: _ONNXRUNTIME, "executorch": "executorch.runtime", "libtorch": "torch", "ncnn": "ncnn"}
_MODULES.update(litert="ai_edge_litert.interpreter", openvino="openvino")
_PACKAGES = {"libtorch": "torch", "litert": "ai-edge-litert"}


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
    by_onnxruntime = runtime == _ONNXRUNTIME
    cold = _cold_start(options)
    operators = _operators(options) if by_onnxruntime else []
    if by_onnxruntime:
        _check_fallback(options, operators)
    run, shape = _load(options, options.model)(options.batch_size)
    latency = _sample(run, options)
    latency.update(
        threads=options.threads,
        batch_size=options.batch_size,
        load_ms=cold["load_ms"],
        first_run_ms=cold["first_run_ms"],
    )
    return {
        "schema_version": SCHEMA_VERSION,
        "model": {"sha256": hashlib.sha256(model).hexdigest(), "bytes": len(model), "input_shape": shape},
        "runtime": {
            "python": platform.python_version(),
            "onnxruntime": _onnxruntime_version() if by_onnxruntime else "not used",
            "numpy": np.__version__,
            "system": platform.system(),
            "machine": platform.machine(),
            "processor": _processor(),
        },
        "cpus": _cpus(),
        "memory_limit_mb": options.memory,
        "constrained": options.cpus is not None or options.memory is not None,
        "latency": latency,
        "cold_start": cold,
        "throughput": [_throughput(options, size) for size in options.batches],
        "operators": operators,
        "provider": _provider(options, runtime),
        "on_cpu": sorted(entry["name"] for entry in operators if entry.pop("provider") == _CPU),
        "provider_difference": _provider_difference(options) if by_onnxruntime else None,
        "graph_macs": _graph_macs(options) if by_onnxruntime else [],
        "peak_gflops": _peak_gflops(),
    }


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Time the model and another one in random blocks, with a second session of the other as the A/A floor."""
    names = ("candidate", "baseline", "baseline_again")
    paths = (options.model, options.against, options.against)
    runs = [_load(options, path)(options.batch_size)[0] for path in paths]
    settled = [_warm_up(run, options.warmup_seconds) for run in runs]
    blocks: list[list[float]] = [[] for _ in runs]
    generator = random.Random(options.seed)
    before, started = _readings(), time.perf_counter()
    while time.perf_counter() - started < options.min_seconds or len(blocks[0]) < options.blocks:
        if time.perf_counter() - started > options.max_seconds:
            break
        order = list(range(len(runs)))
        generator.shuffle(order)
        for index in order:
            blocks[index].append(round(statistics.median(_block(runs[index])), 5))
    host = _host(before, _readings(), all(settled))
    sessions = [{"name": name, "block_p50_ms": blocks[index]} for index, name in enumerate(names)]
    return {"schema_version": SCHEMA_VERSION, "threads": options.threads, "sessions": sessions, "host": host}


def percentile_upper_bound(ordered: Sequence[float], fraction: float, confidence: float = _CONFIDENCE) -> float | None:
    """Upper confidence bound on a percentile by an order statistic; None where the samples are too few."""
    rank = _binomial_quantile(len(ordered), fraction, confidence) + 1
    return ordered[rank - 1] if rank <= len(ordered) else None


def samples_needed(fraction: float, confidence: float = _CONFIDENCE) -> int:
    """Least number of samples that bound a percentile: 44 for p90, 459 for p99."""
    return math.ceil(math.log(1 - confidence) / math.log(fraction))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
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


def open_session(
    options: argparse.Namespace, model: str | bytes, *, profile: str | None = None, optimise: bool = True
) -> onnxruntime.InferenceSession:
    """A session of a file or its bytes on `options.provider` with `options.threads`.

    Raises:
        ValueError: there is no such provider here.
        RuntimeError: onnxruntime puts another one in its place.
    """
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    if not optimise:
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        settings.add_session_config_entry("session.disable_prepacking", "1")  # packed weights lose their shape
    if profile is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = profile
    session = ort.InferenceSession(model, settings, providers=providers_of(options.provider))
    wanted = providers_of(options.provider)[0][0]
    if session.get_providers()[0] != wanted:
        raise RuntimeError(f"onnxruntime falls back to {session.get_providers()[0]}: {wanted} cannot be used here")
    return session


def providers_of(text: str | None) -> list[tuple[str, dict[str, str]]]:
    """The provider that is named, with or without ExecutionProvider, before that of the CPU, which takes the rest."""
    import onnxruntime as ort

    if text is None:
        return [(_CPU, {})]
    short, _, given = text.partition(":")
    names = {name.lower(): name for name in ort.get_available_providers()}
    found = names.get(short.lower()) or names.get(f"{short.lower()}executionprovider")
    if found is None:
        raise ValueError(f"onnxruntime {ort.__version__} has no provider {short}; it has {', '.join(names.values())}")
    settings = dict(part.split("=", 1) for part in given.split(",") if part)
    return [(found, settings)] if found == _CPU else [(found, settings), (_CPU, {})]


def _onnxruntime_version() -> str:
    import onnxruntime as ort

    return str(ort.__version__)  # its distribution has other names: onnxruntime-gpu, onnxruntime-openvino


def _provider(options: argparse.Namespace, runtime: str) -> str:
    if runtime == _ONNXRUNTIME:
        return providers_of(options.provider)[0][0]
    return f"{runtime} {version(_PACKAGES.get(runtime, runtime))}"


def _runner(session: onnxruntime.InferenceSession, batch_size: int) -> tuple[Callable[[], list[Any]], list[int]]:
    import numpy as np

    (entry,) = session.get_inputs()
    sides = _sides(session, entry.shape[1:])
    if any(not isinstance(size, int) for size in sides):
        raise ValueError(f"input {entry.name} has shape {entry.shape}: only the first dimension may be free")
    kind = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}[entry.type]
    shape = [batch_size, *sides]
    images = {entry.name: np.random.default_rng(0).standard_normal(shape).astype(kind)}
    return lambda: session.run(None, images), shape


def _sides(session: onnxruntime.InferenceSession, given: list[Any]) -> list[Any]:
    """Of a file of ecd-deploy that brings images to size itself: pictures of twice the sides that it scales them to."""
    described = json.loads(session.get_modelmeta().custom_metadata_map.get("ecd_deploy", "{}"))
    if described.get("preprocessing") != "full":
        return given
    resize = described["resize"]
    height, width = resize if isinstance(resize, list) else (resize, resize)
    return [2 * height, 2 * width, described["input_shape"][0]]


def runtime_of(path: str) -> str:
    """Which runtime a file is for, by its contents; onnxruntime where they do not say."""
    with Path(path).open("rb") as file:
        begin = file.read(8)
    if begin[:2] == b"PK":
        with zipfile.ZipFile(path) as archive:
            names = {name.rsplit("/", 1)[-1] for name in archive.namelist()}
        return next((_MEMBERS[name] for name in sorted(names) if name in _MEMBERS), _ONNXRUNTIME)
    return _SIGNATURES.get(begin[4:], _ONNXRUNTIME)


def _load(options: argparse.Namespace, path: str) -> Callable[[int], tuple[Callable[[], object], list[int]]]:
    """Load a file by its runtime; what comes back is given a batch size, and gives a run of it and the input's shape.

    Other runtimes than onnxruntime are given one image at a time.
    """
    runtime = runtime_of(path)
    if runtime == _ONNXRUNTIME:
        session = open_session(options, path)
        return lambda batch_size: _runner(session, batch_size)
    if options.provider is not None:
        raise ValueError(f"--provider is onnxruntime's, and {runtime} runs this file")
    run, shape, kind = _LOADERS[runtime](path, options.threads)

    def ready(batch_size: int) -> tuple[Callable[[], object], list[int]]:
        import numpy as np

        images = np.random.default_rng(0).standard_normal([batch_size, *shape]).astype(kind)
        return lambda: [run(image[np.newaxis]) for image in images], [batch_size, *shape]

    return ready


def _load_executorch(path: str, threads: int) -> tuple[Callable[[Any], object], list[int], str]:
    from executorch.runtime import Runtime

    torch: Any = import_module("torch")
    torch.set_num_threads(threads)
    program: Any = Runtime.get().load_program(Path(path))
    method = program.load_method("forward")
    shape = json.loads(program.load_method("ecd_deploy").execute([])[0])["input_shape"]
    return lambda image: method.execute([torch.from_numpy(image)]), shape, "float32"


def _load_libtorch(path: str, threads: int) -> tuple[Callable[[Any], object], list[int], str]:
    torch: Any = import_module("torch")
    torch.set_num_threads(threads)
    texts = {"metadata.json": ""}
    module = torch.jit.load(path, _extra_files=texts)

    def run(image: Any) -> object:
        with torch.inference_mode():
            return module(torch.from_numpy(image))

    return run, json.loads(texts["metadata.json"])["input_shape"], "float32"


def _load_litert(path: str, threads: int) -> tuple[Callable[[Any], object], list[int], str]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    (given,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(image: Any) -> object:
        interpreter.set_tensor(given["index"], image)
        interpreter.invoke()
        return interpreter.get_tensor(logits["index"])

    return run, [int(size) for size in given["shape"][1:]], "float32"


def _load_ncnn(path: str, threads: int) -> tuple[Callable[[Any], object], list[int], str]:
    import ncnn

    net: Any = ncnn.Net()
    net.opt.num_threads = threads
    # float32, as it was validated
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = net.opt.use_bf16_packed = False
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        shape = json.loads(archive.read("metadata.json"))["input_shape"]
        graph, weights = (archive.extract(f"student.ncnn.{part}", folder) for part in ("param", "bin"))
        if net.load_param(graph) or net.load_model(weights):
            raise ValueError("ncnn cannot open the file")

    def run(image: Any) -> object:
        extractor = net.create_extractor()
        extractor.input("images", ncnn.Mat(image[0]))
        return extractor.extract("logits")

    return run, shape, "float32"


def _load_openvino(path: str, threads: int) -> tuple[Callable[[Any], object], list[int], str]:
    import openvino

    core: Any = openvino.Core()
    with zipfile.ZipFile(path) as archive:
        model = core.read_model(model=archive.read("student.xml"), weights=archive.read("student.bin"))
    # The default on some processors is bfloat16, which is not what was validated.
    compiled = core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"})
    shape = [size.get_length() for size in list(compiled.input(0).partial_shape)[1:]]
    return compiled, shape, compiled.input(0).get_element_type().to_dtype().name


_LOADERS = {
    "executorch": _load_executorch,
    "libtorch": _load_libtorch,
    "litert": _load_litert,
    "ncnn": _load_ncnn,
    "openvino": _load_openvino,
}
"""Each gives what runs one image, the image's shape and its type."""


def _warm_up(run: Callable[[], object], seconds: float) -> bool:
    """Run until three blocks in a row agree; False where they never do."""
    medians: list[float] = []
    started = time.perf_counter()
    while time.perf_counter() - started < max(5.0, 4 * seconds):
        medians.append(statistics.median(_block(run)))
        last = medians[-3:]
        steady = len(last) == 3 and max(last) <= (1 + _STEADY) * min(last)
        if time.perf_counter() - started >= seconds and (steady or seconds == 0):
            return True
    return False


def _block(run: Callable[[], object]) -> list[float]:
    samples: list[float] = []
    end = time.perf_counter() + _BLOCK_SECONDS
    while time.perf_counter() < end or len(samples) < 3:
        started = time.perf_counter()
        run()
        samples.append((time.perf_counter() - started) * 1e3)
    return samples


def _sample(run: Callable[[], object], options: argparse.Namespace) -> dict[str, Any]:
    """Time runs in parts; between two parts a fixed product shows how fast the host is at that moment."""
    settled = _warm_up(run, options.warmup_seconds)
    product = _reference()
    samples: list[float] = []
    medians: list[float] = []
    references: list[float] = []
    before = _readings()
    started = now = time.perf_counter()
    while now - started < options.max_seconds and (
        now - started < options.min_seconds or len(samples) < options.min_samples
    ):
        references.append(product())
        run()  # not counted: the product has taken the caches
        part: list[float] = []
        now = time.perf_counter()
        end = min(now + max(options.min_seconds / _PARTS, _LEAST_PART_SECONDS), started + options.max_seconds)
        while not part or now < end:
            last = time.perf_counter()
            run()
            now = time.perf_counter()
            part.append(round((now - last) * 1e3, 4))
        samples += part
        medians.append(statistics.median(part))
    host = _host(before, _readings(), settled)
    return {
        "percentiles": percentiles_of(samples),
        "p50_range_ms": median_range(medians),
        "reference_ms": round(statistics.median(references), 5),
        **host,
        "samples_ms": samples,
    }


def median_range(values: Sequence[float], confidence: float = 0.95) -> list[float] | None:
    """Two order statistics between which the median lies with at least this confidence; None of fewer than 6."""
    ordered, tail, rank = sorted(values), 0.0, 0
    while rank < len(ordered) // 2:
        tail += math.comb(len(ordered), rank) / (1 << len(ordered))
        if 2 * tail > 1 - confidence:
            break
        rank += 1
    return [ordered[rank - 1], ordered[-rank]] if rank else None


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


def percentiles_of(samples: Sequence[float]) -> list[dict[str, Any]]:
    """Each percentile with its upper bound; None where the samples are too few."""
    ordered, entries = sorted(samples), []
    for fraction in FRACTIONS:
        needed = samples_needed(fraction)
        entry: dict[str, Any] = {"fraction": fraction, "samples_needed": needed}
        enough = len(ordered) >= needed
        entry["value_ms"] = ordered[max(math.ceil(fraction * len(ordered)) - 1, 0)] if enough else None
        entry["upper_bound_ms"] = percentile_upper_bound(ordered, fraction) if enough else None
        entries.append(entry)
    return entries


def _binomial_quantile(total: int, probability: float, confidence: float) -> int:
    deviation = math.sqrt(total * probability * (1 - probability))
    count = max(int(total * probability - 12 * deviation) - 1, 0)  # what lies below weighs nothing
    reached = 0.0
    while count <= total:
        reached += math.exp(
            math.lgamma(total + 1)
            - math.lgamma(count + 1)
            - math.lgamma(total - count + 1)
            + count * math.log(probability)
            + (total - count) * math.log1p(-probability)
        )
        if reached >= confidence:
            return count
        count += 1
    return total


def _readings() -> dict[str, Any]:
    stolen, ticks = _stolen_ticks()
    frequencies = [_number(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq") for cpu in _cpus()]
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


def _host(before: dict[str, Any], after: dict[str, Any], settled: bool) -> dict[str, Any]:
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


def _cold_start(options: argparse.Namespace) -> dict[str, Any]:
    """Medians of fresh processes, from their start to their first result; the files are in the disk cache."""
    command = [sys.executable, __file__, options.model, "--first-result", "--threads", str(options.threads)]
    command += ["--batch-size", str(options.batch_size)]
    if options.memory is not None:
        command += ["--memory", str(options.memory)]
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
    import_module(_MODULES[runtime_of(options.model)])  # part of the cold start, not of the load time
    started = time.perf_counter()
    loader = _load(options, options.model)
    loaded = time.perf_counter()
    run, _ = loader(options.batch_size)
    ready = time.perf_counter()
    run()
    done = time.perf_counter()
    return {"load_ms": (loaded - started) * 1e3, "first_run_ms": (done - ready) * 1e3, "peak_memory_mb": _peak_mb()}


def _throughput(options: argparse.Namespace, batch_size: int) -> dict[str, Any]:
    if runtime_of(options.model) == _ONNXRUNTIME:
        fixed = open_session(options, options.model).get_inputs()[0].shape[0]
        if isinstance(fixed, int) and fixed != batch_size:
            return {"batch_size": batch_size, "images_per_second": None}
    run, _ = _load(options, options.model)(batch_size)
    _block(run)
    best = min(statistics.median(_block(run)) for _ in range(5))
    return {"batch_size": batch_size, "images_per_second": round(batch_size / best * 1e3, 2)}


def _operators(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Median time of each operator as onnxruntime runs it, after its fusions."""
    times: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}
    providers: dict[str, str] = {}
    for event in _profile(options, runs=30, optimise=True):
        name = event["name"][: -len("_kernel_time")]
        times.setdefault(name, []).append(event["dur"])
        kinds[name] = event["args"]["op_name"]
        providers[name] = event["args"]["provider"]
    return [
        {"name": name, "kind": kinds[name], "provider": providers[name], "median_us": statistics.median(times[name])}
        for name in times
    ]


def _check_fallback(options: argparse.Namespace, operators: list[dict[str, Any]]) -> None:
    """Refuse a provider that onnxruntime loads and gives nothing to do, which it says to nobody."""
    name = providers_of(options.provider)[0][0]
    if all(entry["provider"] != name for entry in operators):
        raise RuntimeError(f"{name} runs no operator of this model: onnxruntime gives all {len(operators)} to the CPU")


def _provider_difference(options: argparse.Namespace) -> float | None:
    """Of the provider's scores from the CPU's, on the images that are timed; None on the CPU."""
    import numpy as np

    if providers_of(options.provider)[0][0] == _CPU:
        return None
    on_cpu = argparse.Namespace(**{**vars(options), "provider": None})
    found, expected = (
        np.concatenate([np.ravel(scores).astype(np.float64) for scores in run()])
        for run in (_runner(open_session(where, where.model), options.batch_size)[0] for where in (options, on_cpu))
    )
    if np.isfinite(expected).all() and not np.isfinite(found).all():
        raise RuntimeError(f"{providers_of(options.provider)[0][0]} gives scores that are not finite")
    return float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-12))


def _graph_macs(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Multiply-accumulates of each operator of the graph as it was written, for one image."""
    entries = []
    for event in _profile(options, runs=1, optimise=False):
        macs = _macs(event["args"])
        if macs:
            entries.append({"name": event["name"][: -len("_kernel_time")], "macs": macs})
    return entries


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


def _profile(options: argparse.Namespace, *, runs: int, optimise: bool) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(options, options.model, profile=str(Path(folder) / "profile"), optimise=optimise)
        fixed = session.get_inputs()[0].shape[0]
        run, _ = _runner(session, fixed if isinstance(fixed, int) else 1)
        for _ in range(runs):
            run()
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]


def _peak_gflops() -> float:
    """Best rate of numpy's float32 matrix product with the same threads: what this host can reach."""
    import numpy as np

    left = np.random.default_rng(0).standard_normal((_GEMM_SIZE, _GEMM_SIZE), dtype=np.float32)
    best = min(min(_block(lambda: left @ left)) for _ in range(6))
    return round(2 * _GEMM_SIZE**3 / best / 1e6, 2)


def _peak_mb() -> float | None:
    for line in _text("/proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 2)
    if resource is None:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
    most: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most * unit / 1e6, 2)


def _cpus() -> list[int]:
    affinity = getattr(os, "sched_getaffinity", None)
    return list(range(os.cpu_count() or 1)) if affinity is None else sorted(affinity(0))


def _stolen_ticks() -> tuple[int, int]:
    fields = [int(field) for field in _text("/proc/stat").split("\n", 1)[0].split()[1:9]]
    return (fields[7], sum(fields)) if len(fields) == 8 else (0, 0)


def _processor() -> str:
    for line in _text("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return _text("/proc/device-tree/model").strip("\0") or platform.machine()


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


if __name__ == "__main__":
    sys.exit(main())
