from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from ecd_deploy.errors import RecipeError
from ecd_deploy.files import sha256_bytes, sha256_file
from ecd_deploy.pipelines.gate.limits import read_limits
from ecd_deploy.recipe.gate import GateConfig
from tests.commands import Ended, run_command


def written(folder: Path, text: str) -> Path:
    path = folder / "ci.toml"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "text", ["min_top1 = 0.5\n", "min_top1 = 0.5\r\n", "[gate]\nmin_top1 = 0.5\n", "gate = {min_top1 = 0.5}\n"]
)
def test_limits_are_read_with_and_without_a_header(tmp_path: Path, text: str) -> None:
    limits = read_limits(written(tmp_path, text))
    assert limits.config == GateConfig(min_top1=0.5)
    assert (limits.source.file, limits.source.sha256) == ("ci.toml", sha256_bytes(text.encode()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "min_topq = 0.5",
            r"min_topq: unknown key \(did you mean 'min_top5'\?\); known keys are min_top1, ",
        ),
        ("[gate]\nmin_topq = 0.5", r"gate\.min_topq: unknown key \(did you mean 'min_top5'\?\)"),
        ("[gates]\nmin_top1 = 0.5", r"gates: unknown key \(did you mean 'gate'\?\); known keys are gate"),
        ("[gate]\nmin_top1 = 0.5\n[profile]\nthreads = 2", "profile: unknown key; known keys are gate"),
        ("min_top1 = 0.5\n[gate]\nmax_drop = 0.1", "min_top1: unknown key; known keys are gate"),
        ("min_top1 = nan", "min_top1: "),
        ("min_top1 = 1.5", r"min_top1: .*it is 1\.5"),
        ("[gate]\nmin_top1 = '0.5'", r"gate\.min_top1: .*it is '0\.5'"),
        ("min_top1 = 0.5\nmin_top1 = 0.6", "not valid TOML"),
    ],
)
def test_limits_that_cannot_be_used_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_limits(written(tmp_path, text))


def test_a_name_that_is_not_utf8_can_be_recorded(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xf6.toml")
    path.write_text("min_top1 = 0.5\n")
    source = read_limits(path).source
    assert source.file == r"\xf6.toml"
    assert source.to_json()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"cannot read limits .*ci\.toml"):
        read_limits(tmp_path / "ci.toml")


@pytest.mark.parametrize("limit", ["min_top1", "max_drop", "max_baseline_drop", "max_brier", "min_class_recall"])
def test_a_limit_on_accuracy_is_told_from_others(limit: str) -> None:
    assert GateConfig.model_validate({limit: 0.5}).limits_accuracy()
    assert not GateConfig(max_size_mb=1.0, p90_ms_max=1.0, max_p50_ratio=1.1).limits_accuracy()


def test_a_file_switches_the_recipe_s_limits_off_and_that_is_said(
    finished_run: tuple[Path, Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(finished_run[0], tmp_path / "run")
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    config = written(tmp_path, "[gate]\nmax_size_mb = 1.0\n")
    comment = tmp_path / "comment.md"
    ended = run_command(["gate", run, "--config", config, "--markdown", comment], cwd=tmp_path)
    assert ended.code == 0, ended.err
    gate = json.loads((run / "gate.json").read_text())
    names = [check["name"].split()[0] for check in gate["checks"]]
    assert names[:2] == ["split", "artefact"]
    assert set(names[2:]) == {"max_abs_diff", "max_size_mb"}
    assert gate["limits"] == {"file": "ci.toml", "sha256": sha256_file(config), "replaces_recipe": True}
    assert not gate["limits_accuracy"]
    assert run_command(["report", run], cwd=tmp_path).code == 0
    for said in (ended.out, (run / "report.md").read_text(), summary.read_text(), comment.read_text()):
        assert "This gate decides nothing about accuracy" in " ".join(said.split())
        assert f"Limits: ci.toml, in place of the recipe's (SHA-256 {sha256_file(config)})." in " ".join(said.split())
    assert "> [!WARNING]" in summary.read_text()


def test_the_recipe_s_own_limits_are_said_to_be_its_own(finished_run: tuple[Path, Ended]) -> None:
    root, ended = finished_run
    gate = json.loads((root / "gate.json").read_text())
    digest = sha256_file(root / "recipe.toml")
    assert gate["limits"] == {"file": "recipe.toml", "sha256": digest, "replaces_recipe": False}
    assert "Limits: " not in ended.out  # they are where everybody looks for them
    assert "decides nothing about accuracy" not in ended.out
