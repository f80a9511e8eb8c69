from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecd_deploy.cli import cli
from tests.commands import run_command


def make_folder(root: Path, classes: dict[str, list[str]]) -> None:
    generator = np.random.default_rng(0)
    for split, names in classes.items():
        for name in names:
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(12):
                pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")


def test_help_is_quick_and_imports_no_torch() -> None:
    code = (
        "import sys; from ecd_deploy.cli import main\ntry: main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    )
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # What others do at the same time adds to the time on the clock, but hardly to that of the processor.
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == 0, done.stderr
    assert "Exit codes" in done.stdout
    assert min(times) < 0.4


def test_help_lists_every_command_once_and_cuts_no_sentence() -> None:
    listed = [command.name for section in cli.sections for command in section.commands]
    assert sorted(filter(None, listed)) == sorted(cli.commands)
    ended = run_command(["--help"], cwd=Path.cwd())
    assert "..." not in ended.out.partition("Options:")[2]
    for section in cli.sections:
        assert f"{section.title}:\n" in ended.out
        for command in section.commands:
            # A whole sentence in one line of a terminal of 80 characters.
            assert re.search(rf"^  {command.name} +[A-Z].*[.]$", ended.out, re.MULTILINE), command.name


def test_commands_and_options_are_these() -> None:
    options = {
        name: sorted(parameter.name or "" for parameter in command.params) for name, command in cli.commands.items()
    }
    assert options == {
        "init": ["folder", "force", "out"],
        "run": ["accept_changes", "device", "out", "overrides", "recipe", "rehearsal", "resume", "skip_bad"],
        "train": ["accept_changes", "overrides", "recipe", "rehearsal", "resume", "run_dir", "skip_bad"],
        "rehearse": ["overrides", "recipe"],
        "split": ["run_dir"],
        "export": ["run_dir"],
        "validate": ["run_dir"],
        "evaluate": ["config", "data", "model", "out", "overrides", "shape", "skip_bad"],
        "predict": ["as_json", "config", "images", "model", "overrides", "shape", "top"],
        "profile": [
            "choice",
            "cpus",
            "device",
            "hosts",
            "memory",
            "output",
            "provider",
            "python",
            "shape",
            "target",
            "threads",
            "timeout",
        ],
        "gate": ["baseline", "config", "data", "markdown", "out", "overrides", "power", "shape", "skip_bad", "target"],
        "report": ["against", "run_dir"],
        "bundle": ["config", "data", "format_name", "out", "overrides", "shape", "skip_bad", "target"],
        "compare": ["jobs", "out", "resume", "slurm", "slurm_set", "stack", "study"],
        "search": [
            *("device", "early_stop", "every", "host", "limits", "out", "overrides", "python"),
            *("recipe", "resume", "stop_margin", "stop_share", "students"),
        ],
        "verify": ["chain", "public_key", "reproduce", "run_dir"],
        "sign": ["certificate", "chain", "key", "run_dir"],
        "recipes": [],
        "studies": [],
        "explain": ["against", "images", "run_dir", "samples", "seed"],
        "models": [],
        "inspect": [
            *("batch_size", "classes", "every_convolution", "image_size", "in_channels"),
            *("kernels", "overrides", "rehearsal", "stages", "subject"),
        ],
        "schema": [],
        "doctor": [],
    }


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "nonsense"], 2, "built-in names are"),
        (["run", "digits", "--set", "train.epocs=1"], 2, "did you mean 'epochs'"),
        (["run", "digits", "--resume"], 2, "--resume needs --out"),
        (["run", "digits", "--out", "/proc/run"], 4, "cannot write to /proc/run"),
        (["run", "digits", "--set", "student.name=resnet9"], 2, "resnet8"),
        (["run", "digits", "--set", "student.num_classes=11"], 2, "num_classes is 11, but the data have 10 classes"),
        (["run", "digits", "--set", "method.stages=[7]"], 2, "stage"),
        (["run", "digits", "--set", "data.source=imagefolder", "--set", "data.path=absent"], 4, "absent"),
        (["train", "somewhere"], 2, "--recipe"),
        (["split", "absent"], 2, "not a run directory"),
        (["gate", "."], 2, "not a run directory"),
        (["frobnicate"], 2, "No such command"),
        (["run"], 2, "Missing argument"),
    ],
)
def test_errors_have_their_code_and_no_traceback(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    ended = run_command(arguments, cwd=tmp_path)
    assert ended.code == code, ended.err
    assert message in ended.err
    assert "Traceback" not in ended.err


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    ended = run_command(["--debug", "run", "nonsense"], cwd=tmp_path)
    assert ended.code == 2
    assert "Traceback" in ended.err


def test_a_loss_that_is_not_finite_names_the_step(tmp_path: Path) -> None:
    arguments = ["run", "digits", "--out", "run", "--set", "train.learning_rate=1e30", "--set", "train.warmup_epochs=0"]
    ended = run_command(arguments, cwd=tmp_path)
    assert ended.code == 4
    assert "step" in ended.err
    assert "finite" in ended.err
    assert not (tmp_path / "run" / "exports").exists()


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"train": ["cat", "dog", "fox"], "test": ["cat", "fox"]}, "dog"),
        ({"train": ["cat", "dog"]}, "test"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, classes: dict[str, list[str]], message: str) -> None:
    make_folder(tmp_path / "images", classes)
    ended = run_command(
        ["run", "digits", "--set", "data.source=imagefolder", "--set", f"data.path={tmp_path / 'images'}"], cwd=tmp_path
    )
    assert ended.code == 4
    assert message in ended.err


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path / "images", {"train": ["cat", "dog"], "test": ["cat", "dog"]})
    (tmp_path / "images" / "train" / "eel").mkdir()
    (tmp_path / "images" / "test" / "eel").mkdir()
    ended = run_command(
        ["run", "digits", "--set", "data.source=imagefolder", "--set", f"data.path={tmp_path / 'images'}"], cwd=tmp_path
    )
    assert ended.code == 4
    assert "eel" in ended.err


def test_schema_is_json_with_the_fields() -> None:
    ended = run_command(["schema"], cwd=Path.cwd())
    assert "method" in json.loads(ended.out)["properties"]


def test_lists(tmp_path: Path) -> None:
    assert "cifar100-resnet20" in run_command(["recipes"], cwd=tmp_path).out
    models = run_command(["models"], cwd=tmp_path).out
    assert "resnet164" in models
    assert "torchvision:NAME" in models
    assert re.search(r"^table-15 +48 arms x 3 seeds\.", run_command(["studies"], cwd=tmp_path).out, re.MULTILINE)


def test_doctor_finds_what_is_installed(tmp_path: Path) -> None:
    ended = run_command(["doctor"], cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "onnxruntime" in ended.out


@pytest.mark.parametrize("command", ["schema", "studies"])  # by click, and by rich, which would exit by itself
def test_an_output_that_nobody_reads_is_no_error(command: str) -> None:
    unread, written = os.pipe()
    os.close(unread)
    with os.fdopen(written, "w") as output:
        done = subprocess.run(
            [sys.executable, "-m", "ecd_deploy", command], stdout=output, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_student_of_the_current_folder_is_found_by_every_step(tmp_path: Path) -> None:
    (tmp_path / "netbeside.py").write_text(
        "from torch import nn\n\n\n"
        "def build(num_classes, in_channels):\n"
        "    layers = nn.Conv2d(in_channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)\n"
        "    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, num_classes))\n"
    )
    settings = ["student.name=netbeside:build", "method.name=plain", "train.epochs=1", "data.train_limit=200"]
    words = [word for setting in settings for word in ("--set", setting)]
    # each in a process of its own, whose path does not have the folder
    trained = run_command(["train", "run", "--recipe", "digits", "--no-rehearsal", *words], cwd=tmp_path)
    assert trained.code == 0, trained.err
    split = run_command(["split", "run"], cwd=tmp_path)
    assert (split.code, split.err) == (0, "")
    elsewhere = run_command(["split", tmp_path / "run"], cwd=tmp_path / "run")
    assert elsewhere.code == 2
    assert f"neither in the current folder, {tmp_path / 'run'}, nor on PYTHONPATH" in elsewhere.err
