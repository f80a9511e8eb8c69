"""Which of the heavy libraries a command loads: what it does not need costs the user seconds each time."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("accelerate", "matplotlib", "onnx", "onnxruntime", "pandas", "scipy.stats", "sklearn", "torch", "torchvision")


def loaded(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "needed"),
    [
        ("import ecd_deploy.cli, ecd_deploy.recipe.recipe, ecd_deploy.pipelines.run", set()),
        ("import ecd_deploy.pipelines.inspect.doctor", set()),
        ("import ecd_deploy.pipelines.gate.decide, ecd_deploy.cli.text.gate", set()),
        ("import ecd_deploy.pipelines.device.command, ecd_deploy.cli.text.profile", set()),
        ("from ecd_deploy.split import SplitProof; from ecd_deploy.exporters import ArtefactMetadata", set()),
        ("import ecd_deploy.pipelines.steps.split", {"accelerate", "torch"}),
        ("from ecd_deploy.data.arrays import open_digits; open_digits(None)", {"torch"}),
    ],
    ids=["lists", "doctor", "gate", "profile", "results", "split", "digits"],
)
def test_a_command_loads_what_it_needs(statement: str, needed: set[str]) -> None:
    assert loaded(statement) <= needed
