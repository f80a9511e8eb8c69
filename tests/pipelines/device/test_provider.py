"""Execution providers of onnxruntime, with those that its builds on PyPI have: Azure's takes no operator."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime as ort
import pytest

from tests.commands import run_command
from tests.pipelines.evaluate.colours import INPUT, save_images, write_model

QUICK = "[profile]\nwarmup_seconds = 0.0\nmin_seconds = 0.05\nmin_samples = 44\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_images(tmp_path / "images", each=2)
    write_model(tmp_path / "model.onnx")
    (tmp_path / "gate.toml").write_text(f"{INPUT}{QUICK}[gate]\nmin_top1 = 0.1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("provider", "code", "said"),
    [
        ("Azure", 4, "AzureExecutionProvider runs no operator of"),
        ("NoSuchThing", 4, "has no provider NoSuchThing; it has "),
        ("CPU:x", 2, "neither NAME nor NAME:key=value"),
    ],
)
def test_a_provider_that_does_nothing_is_no_measurement(folder: Path, provider: str, code: int, said: str) -> None:
    ended = run_command(["profile", "model.onnx", "--provider", provider, "--json", "found.json"], cwd=folder)
    assert ended.code == code, ended.err
    assert said in ended.err
    assert not (folder / "found.json").exists()


@pytest.mark.parametrize(("provider", "code"), [("AzureExecutionProvider", 4), ("NoSuchThing", 2)])
@pytest.mark.parametrize("command", ["evaluate", "gate"])
def test_accuracy_is_measured_on_the_provider_or_not_at_all(
    folder: Path, command: str, provider: str, code: int
) -> None:
    words = [command, "model.onnx", "--data", "images", "--config", "gate.toml", "--out", "out"]
    ended = run_command([*words, "--set", f"profile.provider={provider}"], cwd=folder)
    assert (ended.code, ended.out) == (code, ""), ended.err
    assert provider in ended.err
    assert not (folder / "out").exists()


def test_a_provider_and_its_options_are_recorded(folder: Path) -> None:
    words = ["profile", "model.onnx", "--provider", "cpu:use_arena=0", "--json", "found.json"]
    ended = run_command(words, cwd=folder)
    assert ended.code in {0, 3}, ended.err
    measured = json.loads((folder / "found.json").read_text())["measurement"]
    assert measured["provider"] == "CPUExecutionProvider"
    assert sorted(measured["on_cpu"]) == sorted(entry["name"] for entry in measured["operators"])
    assert measured["provider_difference"] is None


@pytest.mark.skipif(
    "OpenVINOExecutionProvider" not in ort.get_available_providers(), reason="needs onnxruntime-openvino"
)
def test_a_providers_scores_are_compared_with_the_cpus(folder: Path) -> None:
    ended = run_command(["profile", "model.onnx", "--provider", "OpenVINO", "--json", "found.json"], cwd=folder)
    assert ended.code in {0, 3}, ended.err
    measured = json.loads((folder / "found.json").read_text())["measurement"]
    assert 0 <= measured["provider_difference"] < 1e-2
    assert "scores differ from the CPU's by at most" in ended.out
