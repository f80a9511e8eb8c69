from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file

from ecd_deploy.data import load_data
from ecd_deploy.files import sha256_file
from ecd_deploy.models import build_student
from ecd_deploy.recipe.recipe import load_recipe
from tests.commands import Ended, run_command
from tests.forging import forge_entry

EXPORTS = ("exports/student.safetensors", "exports/student.torchscript.pt", "exports/student.onnx")
RESULTS = (
    "recipe.toml",
    "environment.json",
    "metrics.jsonl",
    "training.json",
    "split.json",
    "split.safetensors",
    "artefacts.json",
    "audit.json",
    "validation.json",
    "profile.json",
    "gate.json",
    "report.md",
)


@pytest.fixture
def run_copy(finished_run: tuple[Path, Ended], tmp_path: Path) -> Path:
    """A copy of the finished run that a test may break."""
    return Path(shutil.copytree(finished_run[0], tmp_path / "run"))


def test_run_ends_well_and_shows_every_check(finished_run: tuple[Path, Ended]) -> None:
    _, ended = finished_run
    assert ended.code in {0, 3}, ended.err  # 3: a latency measured on a busy test machine decides nothing
    for name in (
        "split proof",
        "artefact audit",
        "max_abs_diff onnx",
        "min_top1",
        "max_drop",
        "p90_ms_max",
        "max_size_mb",
        "gate:",
    ):
        assert name in ended.out
    assert "Traceback" not in ended.err


def test_every_file_is_in_the_manifest_with_its_digest(finished_run: tuple[Path, Ended]) -> None:
    root, _ = finished_run
    files = json.loads((root / "MANIFEST.json").read_text())["files"]
    present = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert present - set(files) == {"MANIFEST.json", ".lock"}
    assert set(RESULTS) | set(EXPORTS) <= set(files)
    for name, entry in files.items():
        assert sha256_file(root / name) == entry["sha256"]
        assert (root / name).stat().st_size == entry["bytes"]


def test_student_runs_with_numpy_and_onnxruntime_alone(finished_run: tuple[Path, Ended], tmp_path: Path) -> None:
    root, _ = finished_run
    data = load_data(load_recipe("digits").data, seed=0)
    np.save(tmp_path / "images.npy", data.test.images)
    script = Path(__file__).parents[1] / "docs" / "run_student.py"
    hidden = "import sys; sys.modules['torch'] = sys.modules['ecd_deploy'] = None; import runpy; "
    hidden += "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", hidden, script, root / "exports/student.onnx", tmp_path / "images.npy"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    student = build_student("resnet8", num_classes=10, in_channels=1)
    student.load_state_dict(load_file(root / "exports/student.safetensors"), strict=True)
    student.eval()
    with torch.inference_mode():
        chosen = student(torch.from_numpy(data.normalisation.apply(data.test.images))).argmax(dim=1).numpy()
    assert done.stdout.split() == [data.classes[index] for index in chosen]
    validation = json.loads((root / "validation.json").read_text())
    assert int((chosen == data.test.labels).sum()) == validation["onnx_top1"]["candidate"]["correct"]


def test_artefacts_hold_the_student_and_no_more(finished_run: tuple[Path, Ended]) -> None:
    root, _ = finished_run
    plain = build_student("resnet8", num_classes=10, in_channels=1)
    assert set(load_file(root / EXPORTS[0])) == set(plain.state_dict())
    model = onnx.load(root / EXPORTS[2], load_external_data=False)
    elements = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    assert elements <= sum(tensor.numel() for tensor in plain.state_dict().values())
    for name in EXPORTS:
        assert str(root.parent).encode() not in (root / name).read_bytes()


@pytest.mark.parametrize("step", ["validate", "gate"])
@pytest.mark.parametrize("name", EXPORTS)
def test_any_edited_byte_of_an_artefact_is_refused(run_copy: Path, step: str, name: str) -> None:
    content = bytearray((run_copy / name).read_bytes())
    content[len(content) // 2] ^= 0x10
    (run_copy / name).write_bytes(content)
    ended = run_command([step, run_copy], cwd=run_copy.parent)
    assert ended.code == 4
    assert f"{Path(name).name} was changed" in ended.err
    assert "Traceback" not in ended.err


def test_each_step_can_be_repeated_alone(run_copy: Path) -> None:
    before = {name: sha256_file(run_copy / name) for name in (*EXPORTS, "split.safetensors", "validation.json")}
    for step in ("split", "export", "validate", "report"):
        ended = run_command([step, run_copy], cwd=run_copy.parent)
        assert ended.code == 0, ended.err
    assert before == {name: sha256_file(run_copy / name) for name in before}


def test_gate_fails_on_a_limit_that_is_not_met(run_copy: Path) -> None:
    recipe = run_copy / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("max_size_mb = 1.0", "max_size_mb = 0.001"))
    forge_entry(run_copy, "recipe.toml")
    ended = run_command(["gate", run_copy], cwd=run_copy.parent)
    assert ended.code == 1
    assert "gate failed: max_size_mb" in ended.err
    assert json.loads((run_copy / "gate.json").read_text())["verdict"] == "fail"


def test_a_finished_run_is_not_overwritten(finished_run: tuple[Path, Ended]) -> None:
    root, _ = finished_run
    before = (root / "MANIFEST.json").read_bytes()
    ended = run_command(["run", "digits", "--out", root], cwd=root.parent)
    assert ended.code == 2
    assert "--resume" in ended.err
    assert (root / "MANIFEST.json").read_bytes() == before


def test_report_names_the_verdict_and_the_figures(finished_run: tuple[Path, Ended]) -> None:
    root, _ = finished_run
    report = (root / "report.md").read_text()
    gate = json.loads((root / "gate.json").read_text())
    assert report.startswith(f"# digits: {gate['verdict']}")
    for heading in ("## Gate", "## Accuracy", "## Artefacts", "## Latency", "## Split proof", "## Environment"):
        assert heading in report


def test_a_student_that_leans_on_its_teacher_is_not_split(tmp_path: Path) -> None:
    arguments = ["train", "run", "--recipe", "digits", "--set", "student.name=leaky_student:leaky_student"]
    arguments += ["--set", "train.epochs=1", "--set", "data.train_limit=300"]
    rehearsed = run_command(arguments, cwd=tmp_path)
    assert rehearsed.code == 2
    assert "is the auxiliary module teacher" in rehearsed.err
    assert not (tmp_path / "run").exists()
    trained = run_command([*arguments, "--no-rehearsal"], cwd=tmp_path)
    assert trained.code == 0, trained.err
    ended = run_command(["split", "run"], cwd=tmp_path)
    assert ended.code == 4
    assert "teacher.network.fc.bias" in ended.err
    assert "AddBackward" in ended.err  # the path through the graph
    assert "Traceback" not in ended.err
    assert not (tmp_path / "run" / "split.json").exists()
    assert run_command(["export", "run"], cwd=tmp_path).code == 2


def test_gate_against_a_baseline_writes_what_ci_reads(run_copy: Path, finished_run: tuple[Path, Ended]) -> None:
    ended = run_command(["gate", run_copy, "--baseline", finished_run[0]], cwd=run_copy.parent)
    assert ended.code in {0, 3}, ended.err  # 3: a busy test machine, or too few images to prove the drop
    assert "McNemar" in ended.out
    report = json.loads((run_copy / "gate.json").read_text())
    drop = next(check for check in report["checks"] if check["name"] == "max_baseline_drop")
    assert drop["value"] == 0
    (compared,) = report["comparisons"]
    assert compared["lost"] == compared["gained"] == 0
    suite = ET.parse(run_copy / "junit.xml").getroot()
    assert len(suite) == len(report["checks"])
    absent = run_command(["gate", run_copy, "--baseline", "absent"], cwd=run_copy.parent)
    assert absent.code == 2
    assert ET.parse(run_copy / "junit.xml").getroot().attrib["errors"] == "1"
