"""The format of docs/plugins.md goes the whole way to the gate, by the real command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import run_command
from tests.plugin import install_plugin

# Without a limit on latency: how busy this machine is decides nothing.
RECIPE = """
name = "plugin"
[data]
source = "digits"
train_limit = 300
[student]
name = "resnet8"
[train]
epochs = 1
warmup_epochs = 0.0
[export]
formats = ["npz", "onnx"]
[profile]
min_seconds = 0.1
[gate]
max_drop = 0.01
max_abs_diff = 1e-4
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has the plug-in, which commands that start here find, and a finished run."""
    path = tmp_path_factory.mktemp("plugin")
    install_plugin(path)
    (path / "plugin.toml").write_text(RECIPE)
    ended = run_command(["run", "plugin.toml", "--out", "run"], cwd=path)
    assert ended.code == 0, ended.out + ended.err
    return path


def test_it_passes_the_gate_with_every_tensor_traced(folder: Path) -> None:
    gate = json.loads((folder / "run/gate.json").read_text())
    assert gate["verdict"] == "pass"
    assert {"artefact audit", "max_abs_diff npz"} <= {check["name"] for check in gate["checks"]}
    (audit,) = (one for one in json.loads((folder / "run/audit.json").read_text())["audits"] if one["format"] == "npz")
    assert audit["not_done_reason"] is None
    assert len(audit["tensors"]) > 20
    assert audit["tensor_bytes"] + audit["overhead_bytes"] <= audit["bytes"]


@pytest.mark.slow
def test_it_is_made_again_byte_for_byte(folder: Path) -> None:
    ended = run_command(["verify", "run", "--reproduce"], cwd=folder)
    assert ended.code == 0, ended.err
    assert "exporting again gives the same bytes" in ended.out


def test_without_a_reader_the_gate_says_what_is_missing(tmp_path: Path, folder: Path) -> None:
    module = install_plugin(tmp_path)
    text = module.read_text()
    assert text.count("def contents(") == text.count("self.contents(") == 1
    text = text.replace("self.contents(", "self._contents(").replace("def contents(", "def _contents(")
    module.write_text(text + "\n    def contents(self, data: bytes) -> None:\n        return None\n")
    for step in ("export", "validate"):
        ended = run_command([step, folder / "run"], cwd=tmp_path)
        assert ended.code == 0, ended.err
    ended = run_command(["gate", folder / "run"], cwd=tmp_path)
    assert ended.code == 3, ended.err
    assert "gate inconclusive: artefact audit" in ended.err
    sentence = "the tensors of format 'npz' were not traced to the student, as its exporter has no reader"
    (check,) = (
        one for one in json.loads((folder / "run/gate.json").read_text())["checks"] if one["name"] == "artefact audit"
    )
    assert check["verdict"] == "inconclusive"
    assert check["reason"] == f"{sentence} (`contents` returns None): implement `contents(data)`"
