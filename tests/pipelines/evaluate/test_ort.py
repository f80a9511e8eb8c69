"""A bare .ort file, onnxruntime's own format, by the real commands."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import flatbuffers
import onnx
import onnxruntime as ort
import pytest
from onnxruntime.quantization import quantize_dynamic

from ecd_deploy.compat.onnxruntime import Tensor, ort_session, table_position
from ecd_deploy.exporters.budget import FLOAT32_BUDGET, INT8_BUDGET
from ecd_deploy.exporters.onnx.file import read_onnx_file
from ecd_deploy.files import sha256_file
from ecd_deploy.pipelines.gate.decide import GateReport
from tests.commands import run_command
from tests.pipelines.evaluate.colours import INPUT, save_images, write_model

CONFIG = f"{INPUT}[profile]\nwarmup_seconds = 0.0\nmin_seconds = 0.05\nmin_samples = 44\nmax_seconds = 1.0\n[gate]\n"
GIVEN = ("--data", "images", "--config", "gate.toml")


def to_ort(source: Path, target: Path) -> Path:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return target


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_images(tmp_path / "images")
    to_ort(write_model(tmp_path / "model.onnx"), tmp_path / "model.ort")
    (tmp_path / "gate.toml").write_text(f"{CONFIG}min_top1 = 0.5\nmax_size_mb = 0.1\nmax_p50_ratio = 1000.0\n")
    return tmp_path


def test_it_is_decided_about_against_the_onnx_file_that_it_was_made_from(folder: Path) -> None:
    ended = run_command(["gate", "model.ort", *GIVEN, "--baseline", "model.onnx"], cwd=folder)
    assert ended.code in {0, 3}, ended.err  # 30 images are few for the drop, and the host may be busy
    out = folder / "model.ort-gate"
    report = GateReport.from_json((out / "gate.json").read_bytes(), "no report")
    checks = {check.name: check for check in report.checks}
    assert checks["min_top1"].value == pytest.approx(0.8)
    assert checks["max_baseline_drop"].value == 0
    assert checks["max_size_mb"].value == (folder / "model.ort").stat().st_size / 1e6
    assert checks["max_p50_ratio"].value is not None
    assert (out / "predictions.csv").read_bytes() == (out / "baseline/predictions.csv").read_bytes()
    assert "model.ort has no times by layer" in " ".join((out / "report.md").read_text().split())


def test_images_are_classified_and_it_is_timed(folder: Path) -> None:
    said = [
        run_command(["predict", name, "images/red/0.png", "--config", "gate.toml"], cwd=folder)
        for name in ("model.onnx", "model.ort")
    ]
    assert (said[0].code, said[1].code, said[0].out) == (0, 0, said[1].out), said[1].err
    ended = run_command(["profile", "model.ort", "--json", "found.json"], cwd=folder)
    assert ended.code in {0, 3}, ended.err
    found = json.loads((folder / "found.json").read_text())
    assert (found["file"], found["sha256"]) == ("model.ort", sha256_file(folder / "model.ort"))
    assert (found["layers"], bool(found["measurement"]["operators"])) == ([], True)


def test_its_bundle_checks_itself(folder: Path) -> None:
    (folder / "model.ort").rename(folder / "model.bin")  # onnxruntime tells its format by the name there
    ended = run_command(["bundle", "model.bin", *GIVEN], cwd=folder)
    assert ended.code == 0, ended.err
    with tarfile.open(folder / "model.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    described = json.loads((folder / "model/bundle.json").read_text())
    assert (described["format"], described["model"]) == ("ort", "model.ort")
    command = [sys.executable, "model/run.py", "--no-latency"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_coarsest_of_its_numbers_is_known_without_a_graph(folder: Path) -> None:
    assert read_onnx_file(folder / "model.ort").budget == FLOAT32_BUDGET
    quantize_dynamic(folder / "model.onnx", folder / "int8.onnx")
    assert read_onnx_file(to_ort(folder / "int8.onnx", folder / "int8.ort")).budget == INT8_BUDGET


def keeping_outside(data: bytes, name: str) -> bytes:
    """The file with the bytes of a tensor said to lie in another one."""
    graph = ort_session(data).Model().Graph()
    names = [graph.Initializers(at).Name().decode() for at in range(graph.InitializersLength())]
    builder = flatbuffers.Builder()
    text = builder.CreateString(name)
    Tensor.StartDimsVector(builder, 1)
    builder.PrependInt64(9)
    sides = builder.EndVector()
    Tensor.Start(builder)
    Tensor.AddName(builder, text)
    Tensor.AddDims(builder, sides)
    Tensor.AddDataType(builder, onnx.TensorProto.FLOAT)
    Tensor.AddExternalDataOffset(builder, 0)
    builder.Finish(Tensor.End(builder))
    tensor = bytes(builder.Output())
    planted = bytearray(data + bytes(-(len(data) + len(tensor)) % 64) + tensor)
    table = len(planted) - len(tensor) + struct.unpack_from("<I", tensor)[0]
    before = table_position(graph.Initializers(names.index(name)))
    places = range(table_position(graph), len(data) - 4, 4)
    entry = next(place for place in places if place + struct.unpack_from("<I", data, place)[0] == before)
    struct.pack_into("<I", planted, entry, table - entry)
    return bytes(planted)


def test_what_is_none_or_cannot_run_is_refused_with_the_cause(folder: Path) -> None:
    whole = (folder / "model.ort").read_bytes()
    damaged = {
        "cut.ort": (whole[:-1000], "verification failed"),
        "garbage.ort": (whole[:8] + bytes(range(256)) * 4, "verification failed"),
        "operator.ort": (whole.replace(b"Gemm", b"Gexm"), "Gexm"),
        "outside.ort": (keeping_outside(whole, "w"), "external data"),
        "lite.ort": (b"\x1c\0\0\0TFL3" + bytes(1000), "not an ONNX model or .ort file"),
    }
    for name, (data, cause) in damaged.items():
        (folder / name).write_bytes(data)
        command = ["profile", name] if name == "cut.ort" else ["evaluate", name, *GIVEN]
        ended = run_command(command, cwd=folder)
        said = " ".join(ended.err.split())
        assert (ended.code, ended.out, said.count("Error: ")) == (4, "", 1), (name, said)
        assert name in said
        assert cause in said


def test_free_sides_are_of_an_onnx_file_only(folder: Path) -> None:
    to_ort(write_model(folder / "free.onnx", sides=("h", "w")), folder / "free.ort")
    for command in (["evaluate", "free.ort", *GIVEN, "--shape", "8x8"], ["profile", "free.ort", "--shape", "8x8"]):
        ended = run_command(command, cwd=folder)
        assert ended.code == 2, ended.err
        assert "height and width of an .ort file cannot be fixed" in " ".join(ended.err.split())
