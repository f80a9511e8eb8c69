from __future__ import annotations

import argparse
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from scipy import stats

from ecd_deploy.errors import ExportError
from ecd_deploy.measure.device.archive import RUNNER_NAME, runner_archive
from ecd_deploy.measure.device.runner.command import _cold_start
from ecd_deploy.measure.device.runner.host import disturbance
from ecd_deploy.measure.device.runner.percentiles import FRACTIONS, median_range, percentile_upper_bound
from ecd_deploy.measure.device.runner.runtimes import runtime_of
from ecd_deploy.measure.device.runner.timing import sample
from ecd_deploy.measure.latency.layers import layer_costs
from ecd_deploy.measure.latency.measurement import compare_onnx, measure_onnx
from ecd_deploy.recipe.profile import ProfileConfig
from tests.measure.models import convolution_model

QUICK = ProfileConfig(min_seconds=0.05, min_samples=500, warmup_seconds=0.0)


@pytest.fixture(scope="module")
def model() -> bytes:
    return convolution_model()


def test_measurement_has_every_figure(model: bytes) -> None:
    found = measure_onnx(model, QUICK)
    latency = found.latency
    assert len(latency.samples_ms) >= 500
    values = [entry.value_ms for entry in latency.percentiles]
    assert None not in values
    assert values == sorted(value for value in values if value is not None)
    assert [entry.fraction for entry in latency.percentiles] == [0.1, 0.5, 0.9, 0.95, 0.99]
    assert found.cold_start.process_to_result_ms > found.cold_start.load_ms > 0
    assert (found.cold_start.peak_memory_mb or 0) > 10
    assert [entry.batch_size for entry in found.throughput] == [1, 8, 32]
    assert all(entry.images_per_second for entry in found.throughput)
    assert found.peak_gflops > 1
    assert not found.constrained


def test_macs_and_layers_are_those_of_the_graph(model: bytes) -> None:
    found = measure_onnx(model, QUICK)
    assert found.macs == 8 * 8 * 4 * (2 * 3 * 3) + 5 * 4
    assert found.gflops == pytest.approx(2e-6 * found.macs / (found.latency.at(0.5).value_ms or 0))
    layers = {layer.name: layer for layer in layer_costs(model, found)}
    assert layers["stem"].macs == 8 * 8 * 4 * 18
    assert layers["head"].macs == 20
    assert layers["stem"].median_us > 0


@pytest.mark.parametrize(
    ("begin", "members", "runtime"),
    [
        (b"\x18\0\0\0TFL3", (), "litert"),
        (b"\x18\0\0\0ET12", (), "executorch"),
        (b"\x18\0\0\0ORTM", (), "onnxruntime"),
        (b"\x08\x08", (), "onnxruntime"),
        (b"", ("student.ncnn.bin", "student.ncnn.param"), "ncnn"),
        (b"", ("student.bin", "student.xml"), "openvino"),
        (b"", ("archive/constants.pkl", "archive/data.pkl"), "libtorch"),
        (b"", ("student.npz",), "onnxruntime"),
    ],
)
def test_a_runtime_is_told_by_the_file(begin: bytes, members: tuple[str, ...], runtime: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    if members:
        with zipfile.ZipFile(path, "w") as archive:
            for name in members:
                archive.writestr(name, b"")
    else:
        path.write_bytes(begin)
    assert runtime_of(str(path)) == runtime


def test_limits_make_it_a_constrained_host(model: bytes) -> None:
    config = QUICK.model_copy(update={"cpus": (0,), "memory_mb": 2_000})
    found = measure_onnx(model, config)
    assert found.constrained
    assert found.cpus == (0,)
    assert found.memory_limit_mb == 2_000


def test_too_little_memory_is_an_error(model: bytes) -> None:
    with pytest.raises(ExportError, match="cannot run the model"):
        measure_onnx(model, QUICK.model_copy(update={"memory_mb": 20}))


def test_a_fixed_batch_size_is_measured_alone() -> None:
    found = measure_onnx(convolution_model(1), QUICK)
    assert [entry.images_per_second is None for entry in found.throughput] == [False, True, True]


def test_percentiles_without_enough_samples_are_not_given(model: bytes) -> None:
    config = ProfileConfig(min_seconds=1e-6, max_seconds=1e-6, min_samples=1, warmup_seconds=0.0)
    latency = measure_onnx(model, config).latency
    assert len(latency.samples_ms) == 1
    assert latency.at(0.99).value_ms is None
    assert latency.at(0.99).upper_bound_ms is None
    assert latency.at(0.99).samples_needed == 459


def test_a_broken_model_is_an_artefact_error() -> None:
    with pytest.raises(ExportError, match="the runtime cannot run the model: RuntimeError: InvalidProtobuf"):
        measure_onnx(b"not a model", QUICK)


def test_a_comparison_times_both_in_blocks(model: bytes) -> None:
    found = compare_onnx(model, model, QUICK)
    assert [session.name for session in found.sessions] == ["candidate", "baseline", "baseline_again"]
    assert {len(session.block_p50_ms) for session in found.sessions} == {40}


def test_the_runner_needs_neither_torch_nor_this_package(model: bytes, tmp_path: Path) -> None:
    (tmp_path / RUNNER_NAME).write_bytes(runner_archive())
    (tmp_path / "model.onnx").write_bytes(model)
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'ecd_deploy', 'onnx', 'scipy', 'pydantic')));"
        f"import runpy; sys.argv = ['{RUNNER_NAME}', 'model.onnx', '--min-seconds', '0.01', '--warmup-seconds', '0'];"
        f"runpy.run_path('{RUNNER_NAME}', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('{"schema_version":1')


def test_the_cold_start_is_of_the_provider_that_is_asked_for(model: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(model)
    options = {"model": str(tmp_path / "model.onnx"), "threads": 1, "batch_size": 1, "memory": None}
    with pytest.raises(RuntimeError, match="has no provider absent"):
        _cold_start(argparse.Namespace(**options, provider="absent"))


@pytest.mark.parametrize("count", [43, 44, 45, 458, 459, 460, 1_000, 20_000])
@pytest.mark.parametrize("fraction", FRACTIONS)
def test_bounds_are_those_of_scipy(count: int, fraction: float) -> None:
    ordered = [float(value) for value in range(count)]
    rank = int(stats.binom.ppf(0.99, count, fraction)) + 1
    expected = ordered[rank - 1] if rank <= count else None
    assert percentile_upper_bound(ordered, fraction) == expected


def reading(wall: float, cpu: float, switches: int = 0, stolen: int = 0, mhz: float | None = None) -> dict[str, object]:
    return {
        "wall": wall,
        "cpu": cpu,
        "thread_cpu": cpu,
        "switches": switches,
        "stolen": stolen,
        "ticks": wall * 100,
        "mhz": mhz,
        "celsius": None,
    }


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (reading(10.0, 8.0), "for 80% of the time"),
        (reading(10.0, 10.0, switches=3_000), "300 involuntary context switches per second"),
        (reading(10.0, 10.0, stolen=100), "the hypervisor took 10%"),
        (reading(10.0, 10.0, mhz=1_200.0), "fell from 1500 to 1200 MHz"),
        (reading(10.0, 9.9, switches=10, stolen=1, mhz=1_490.0), None),
    ],
)
def test_each_disturbance_makes_a_run_invalid(after: dict[str, object], reason: str | None) -> None:
    found = disturbance(reading(0.0, 0.0, mhz=1_500.0), after, settled=True)
    assert found["contended"] is (reason is not None)
    assert reason is None or reason in found["reasons"][0]


@pytest.mark.parametrize("count", [6, 7, 19, 20, 500, 3_000])
def test_the_range_of_a_median_is_that_of_the_binomial_distribution(count: int) -> None:
    rank = int(stats.binom.ppf(0.025, count, 0.5))
    found = median_range([float(value) for value in reversed(range(count))])
    assert found == [float(rank - 1), float(count - rank)]


def test_a_range_of_five_medians_is_not_given() -> None:
    assert median_range([1.0] * 5) is None


@pytest.mark.parametrize(("seconds", "steady"), [((0.0005, 0.0005), True), ((0.0005, 0.001), False)])
def test_a_host_that_changes_its_speed_widens_the_range_of_the_p50(seconds: tuple[float, float], steady: bool) -> None:
    start = time.perf_counter()

    def run() -> None:
        end = time.perf_counter() + seconds[time.perf_counter() > start + 0.4]
        while time.perf_counter() < end:
            pass

    found = sample(run, warmup_seconds=0.0, min_seconds=0.8, max_seconds=2.0, min_samples=1)
    low, high = found["p50_range_ms"]
    assert (high / low < 1.2) is steady
