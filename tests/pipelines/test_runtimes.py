"""A run whose target has another runtime beside onnxruntime: accuracy, latency and what ships are of that."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecd_deploy.errors import RecipeError
from ecd_deploy.pipelines.bundle.bundle import bundled_format
from ecd_deploy.pipelines.record.names import GATE_NAME, VALIDATION_NAME
from ecd_deploy.pipelines.record.profile import Profile
from ecd_deploy.pipelines.record.run_directory import read_run
from ecd_deploy.pipelines.record.validation import Validation
from ecd_deploy.recipe.recipe import load_recipe
from tests.commands import run_command

ASKED = "profile.runtimes=['onnxruntime', 'libtorch']"


def test_onnxruntime_is_among_them() -> None:
    with pytest.raises(RecipeError, match="runtimes must contain 'onnxruntime'"):
        load_recipe("digits", ("profile.runtimes=['libtorch']",))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_another_runtime_runs_is_counted_timed_and_gated(tmp_path: Path) -> None:
    changes = (
        *(ASKED, "gate.artefact=torchscript", "gate.p90_ms_max=1000.0", "gate.min_top1=0.8", "train.epochs=4"),
        *("profile.min_seconds=0.1", "profile.max_seconds=5.0", "profile.warmup_seconds=0.0"),
    )
    settings = [word for change in changes for word in ("--set", change)]
    ended = run_command(["run", "digits", "--out", "run", *settings], cwd=tmp_path)
    directory = read_run(tmp_path / "run")
    entries = {entry.format: entry for entry in directory.read_json(VALIDATION_NAME, Validation).artefacts}
    assert entries["torchscript"].top1 is not None, ended
    assert entries["torchscript"].speed is not None
    assert entries["torchscript"].help is not None
    assert entries["safetensors"].top1 is None
    profile = Profile.from_json((tmp_path / "run/profile.json").read_text(), "no profile", RecipeError)
    assert profile.file.endswith("student.torchscript.pt")
    assert profile.measurement.provider.startswith("libtorch ")
    assert profile.layers == ()
    assert "p90_ms_max" in (tmp_path / "run" / GATE_NAME).read_text()
    assert bundled_format(directory) == "onnx"
