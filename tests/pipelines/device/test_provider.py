"""Execution providers of onnxruntime, with those that its builds on PyPI have: Azure's takes no operator."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime as ort
import pytest

from ecd_deploy.exporters.onnx.file import read_onnx_file
from ecd_deploy.pipelines.gate.separation import difference_checks, parity_checks, provider_checks
from ecd_deploy.pipelines.record.names import PROFILE_NAME, VALIDATION_NAME
from ecd_deploy.pipelines.record.profile import Profile
from ecd_deploy.pipelines.record.run_directory import read_run
from ecd_deploy.pipelines.record.validation import Validation
from ecd_deploy.recipe.gate import GateConfig
from tests.commands import Ended, run_command
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


def test_a_latency_of_another_provider_than_that_of_the_accuracy_decides_nothing(
    finished_run: tuple[Path, Ended],
) -> None:
    directory = read_run(finished_run[0])
    profile = directory.read_json(PROFILE_NAME, Profile)
    validation = directory.read_json(VALIDATION_NAME, Validation)
    (onnx,) = validation.shipping("onnx")
    assert provider_checks(onnx, profile) == []
    on_another = onnx.model_copy(update={"provider": "OpenVINOExecutionProvider", "on_cpu": ("softmax",)})
    (check,) = provider_checks(on_another, profile)
    assert check.verdict == "inconclusive"
    assert "on CPUExecutionProvider, parity and accuracy on OpenVINOExecutionProvider" in check.reason
    (row,) = parity_checks(GateConfig(), validation.model_copy(update={"artefacts": (on_another,)}))
    assert row.reason.endswith("by OpenVINOExecutionProvider; 1 operator(s) fell back to the CPU: softmax")


@pytest.mark.parametrize(("difference", "verdict"), [(1e-6, "pass"), (2e-3, "fail")])
def test_the_scores_of_any_model_on_a_provider_are_held_to_those_of_the_cpu(
    folder: Path, finished_run: tuple[Path, Ended], difference: float, verdict: str
) -> None:
    budget = read_onnx_file(folder / "model.onnx").budget
    profile = read_run(finished_run[0]).read_json(PROFILE_NAME, Profile)
    assert difference_checks(profile, budget) == []
    there = {"provider": "OpenVINOExecutionProvider", "on_cpu": ("softmax",), "provider_difference": difference}
    elsewhere = profile.model_copy(update={"measurement": profile.measurement.model_copy(update=there)})
    (check,) = difference_checks(elsewhere, budget)
    assert (check.verdict, check.value, check.limit) == (verdict, difference, 1e-3)
    assert check.reason.endswith("1 operator(s) fell back to the CPU: softmax")


@pytest.mark.slow
@pytest.mark.parametrize(("provider", "code"), [("Azure", 4), ("NoSuchThing", 2)])
def test_a_provider_that_does_nothing_is_found_before_the_training(tmp_path: Path, provider: str, code: int) -> None:
    ended = run_command(["rehearse", "digits", "--set", f"profile.provider={provider}"], cwd=tmp_path)
    assert ended.code == code, ended.err
    assert f"profile.provider {provider}: " in " ".join(ended.err.split())


@pytest.mark.skipif(
    "OpenVINOExecutionProvider" not in ort.get_available_providers(), reason="needs onnxruntime-openvino"
)
def test_a_providers_scores_are_compared_with_the_cpus(folder: Path) -> None:
    ended = run_command(["profile", "model.onnx", "--provider", "OpenVINO", "--json", "found.json"], cwd=folder)
    assert ended.code in {0, 3}, ended.err
    measured = json.loads((folder / "found.json").read_text())["measurement"]
    assert 0 <= measured["provider_difference"] < 1e-2
    assert "scores differ from the CPU's by at most" in ended.out
