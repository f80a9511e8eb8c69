"""Accuracy is of the batch that latency is measured with, and an image has the same logits in every other one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from onnx import NodeProto

from ecd_deploy.files import sha256_file
from tests.batch_dependent import minus_the_mean_of_the_batch, other_in_a_batch_of, plant
from tests.commands import run_command
from tests.forging import forge_entry

BATCH = 16
FILE = "exports/student.onnx"
CHANGES = (
    *("train.epochs=1", "train.warmup_epochs=0.0", "data.train_limit=200", "data.test_limit=50"),
    *('export.formats=["onnx", "torchscript"]', f"profile.batch_size={BATCH}"),
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("batches") / "run"
    changes = [word for change in CHANGES for word in ("--set", change)]
    more = ["--recipe", "digits", "--no-rehearsal", *changes]
    for step, arguments in (("train", more), ("split", []), ("export", [])):
        ended = run_command([step, root, *arguments], cwd=root.parent)
        assert ended.code == 0, ended.err
    return root


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        (minus_the_mean_of_the_batch(), f"other logits alone than in a batch of {BATCH}"),
        (other_in_a_batch_of(BATCH), f"other logits in a batch of 32 than in a batch of {BATCH}"),
        (other_in_a_batch_of(1), f"other logits alone than in a batch of {BATCH}"),
    ],
    ids=["mean of the batch", "only in the batch that is measured", "only alone"],
)
def test_validate_refuses_a_file_whose_logits_depend_on_the_batch(
    exported: Path, tmp_path: Path, nodes: Iterable[NodeProto], says: str
) -> None:
    root = tmp_path / "run"
    shutil.copytree(exported, root)
    path, listed = root / FILE, root / "artefacts.json"
    before = sha256_file(path)
    plant(path, nodes)
    listed.write_text(listed.read_text().replace(before, sha256_file(path)))
    forge_entry(root, FILE)
    forge_entry(root, "artefacts.json")

    ended = run_command(["validate", root], cwd=tmp_path)

    assert ended.code == 4
    assert ended.err.startswith(f"Error: {FILE} gives an image {says}, off by ")
    assert ended.err.count("\n") == 1
    assert not (root / "validation.json").exists()


def test_accuracy_is_of_the_batch_that_latency_is_measured_with(exported: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    shutil.copytree(exported, root)
    for step in ("validate", "profile"):
        ended = run_command([step, root], cwd=tmp_path)
        assert ended.code in ({0} if step == "validate" else {0, 3}), ended.err  # 3 on a busy test machine
        if step == "validate":
            assert f"in batches of {BATCH}\n" in ended.out
    validation, profile = (json.loads((root / f"{name}.json").read_text()) for name in ("validation", "profile"))
    assert validation["batch_size"] == profile["measurement"]["latency"]["batch_size"] == BATCH
    assert validation["onnx_top1"]["candidate"]["images"] == 50
