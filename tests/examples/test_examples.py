"""The examples, as a reader runs them: shortened, from an empty folder."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

from ecd_deploy import ExportConfig, ProfileConfig, Recipe
from tests.pipelines.evaluate.colours import INPUT, save_images, write_model

EXAMPLES = Path(__file__).parents[2] / "examples"


def shortened(recipe: Recipe) -> Recipe:
    quick, one = ProfileConfig(min_seconds=0.1, warmup_seconds=0.0), ExportConfig(formats=("onnx",))
    return recipe.model_copy(update={"profile": quick, "export": one})


def test_any_model_is_gated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path / "images")
    write_model(tmp_path / "model.onnx")
    Path("gate.toml").write_text(f"{INPUT}[gate]\nmin_top1 = 0.5\n[profile]\nmin_seconds = 0.1\n")
    main = runpy.run_path(str(EXAMPLES / "gate_any_model.py"))["main"]
    assert main("model.onnx", "images", "gate.toml") == 0
    assert re.search(r"^pass +min_top1: ", capsys.readouterr().out, re.MULTILINE)
    assert main("absent.onnx", "images", "gate.toml") == 2
    assert "absent.onnx" in capsys.readouterr().err


@pytest.mark.slow
def test_a_student_is_trained_from_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    example = runpy.run_path(str(EXAMPLES / "train_from_python.py"))
    code = example["main"]("runs/first", shortened(example["digits_recipe"](epochs=1)))
    printed = capsys.readouterr().out
    assert code == 1  # one epoch is too few for its limit
    assert re.search(r"^fail +min_top1: ", printed, re.MULTILINE)
    steps = ["rehearse", "train", "split", "export", "validate", "profile", "gate", "report"]
    assert re.findall(r"^(\w+): \d+\.\d s$", printed, re.MULTILINE) == steps


@pytest.mark.slow
def test_the_notebook_runs_from_its_first_cell_to_its_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((EXAMPLES / "train_and_gate.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in cells)
    plt.close("all")
    monkeypatch.setattr(plt, "show", lambda: None)  # Jupyter's draws what pyplot holds, and nothing else
    namespace: dict[str, object] = {}
    for cell in cells:
        exec("".join(cell["source"]), namespace)
    epochs = namespace["epochs"]
    assert isinstance(epochs, list)
    assert len(epochs) == 5
    assert len(plt.get_fignums()) == 1
    plt.close("all")
    printed = capsys.readouterr().out
    assert printed.startswith("rehearsed resnet8 on 8 images")
    assert "split proof: separate from the teacher, by construction" in printed
