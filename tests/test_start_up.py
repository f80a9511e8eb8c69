"""Which of the heavy libraries a command loads: what it does not need costs the user seconds each time."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from ecd_deploy.recipe.recipe import load_recipe
from tests.commands import Ended

HEAVY = (
    *("PIL", "accelerate", "jinja2", "matplotlib", "numpy", "numpy.f2py.crackfortran", "numpy.ma.core", "onnx"),
    *("numpy.polynomial.polynomial", "numpy.testing._private.utils", "onnxruntime", "onnxscript", "pandas", "scipy"),
    *("scipy.stats", "sklearn", "tensorboard", "torch", "torchvision"),
)
PAGES = {"PIL", "jinja2", "numpy", "scipy"}
"""What the bounds and pages of a report are made with."""

_COMMAND = "from ecd_deploy.cli import cli\ncli.main({words!r}, standalone_mode=False)"


def loaded(statement: str) -> set[str]:
    code = f"import sys\ntry:\n    exec({statement!r})\nfinally:\n"
    code += f"    print('LOADED', *(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stdout.splitlines()[-1].split()
    assert last[0] == "LOADED", done.stderr
    return set(last[1:])


@pytest.mark.parametrize("command", ["models", "recipes", "studies", "schema"])
def test_a_list_is_printed_without_the_heavy_libraries(command: str) -> None:
    assert loaded(_COMMAND.format(words=[command])) == set()


def test_doctor_loads_the_two_runtimes_that_it_tries() -> None:
    found = loaded(_COMMAND.format(words=["doctor"]))
    assert {"torch", "onnxruntime"} <= found <= {"numpy", "onnxruntime", "torch"}


def test_a_damaged_run_is_reported_without_torch(finished_run: tuple[Path, Ended], tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished_run[0], tmp_path / "run"))
    (run / "report.md").write_text("changed")
    assert loaded(_COMMAND.format(words=["verify", str(run)])) <= {"numpy"}


def test_the_gate_decides_without_torch(finished_run: tuple[Path, Ended], tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished_run[0], tmp_path / "run"))
    assert loaded(_COMMAND.format(words=["gate", str(run)])) <= {"numpy", "scipy"}


@pytest.mark.parametrize(
    ("statement", "needed"),
    [
        ("import ecd_deploy.cli, ecd_deploy.recipe.recipe, ecd_deploy.pipelines.run", set()),
        ("import ecd_deploy.models, ecd_deploy.pipelines.inspect.doctor", set()),
        ("import ecd_deploy.pipelines.verify.verify, ecd_deploy.pipelines.verify.sign", {"numpy"}),
        ("import ecd_deploy.pipelines.gate.decide, ecd_deploy.cli.text.gate", {"numpy", "scipy"}),
        ("import ecd_deploy.pipelines.report.write, ecd_deploy.cli.text.summary", PAGES),
        ("import ecd_deploy.pipelines.device.command, ecd_deploy.cli.text.profile", {"numpy"}),
        ("from ecd_deploy.split import SplitProof; from ecd_deploy.exporters import ArtefactMetadata", set()),
        ("import ecd_deploy.pipelines.steps.split", {"PIL", "accelerate", "numpy", "torch"}),
        ("from ecd_deploy.data.sources.digits import open_digits; open_digits(None)", {"PIL", "numpy"}),
    ],
    ids=["lists", "doctor", "verify", "gate", "report", "profile", "results", "split", "digits"],
)
def test_a_module_loads_what_it_needs(statement: str, needed: set[str]) -> None:
    assert loaded(statement) <= needed


def test_a_recipe_of_builtin_names_reads_what_no_other_package_announces(monkeypatch: pytest.MonkeyPatch) -> None:
    def announced(**_: str) -> NoReturn:
        raise AssertionError("every installed package was looked into")

    monkeypatch.setattr("ecd_deploy.recipe.data.entry_points", announced)
    monkeypatch.setattr("ecd_deploy.recipe.export.entry_points", announced)
    assert load_recipe("digits").data.source == "digits"


def test_models_takes_at_most_four_times_the_time_of_the_version() -> None:
    version, models = (least_seconds(word) for word in ("--version", "models"))
    assert models <= 4 * version


def least_seconds(word: str) -> float:
    """Seconds of the processor, which others on the machine hardly change; the least of five."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "ecd_deploy", word], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return min(seconds() for _ in range(5))
