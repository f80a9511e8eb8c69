"""Faults of the disk and of the files of a training; each ends with its exit code and loses nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecd_deploy.data import DataSplits
from ecd_deploy.errors import CheckpointError
from ecd_deploy.files import sha256_bytes
from ecd_deploy.training.checkpoints.store import CheckpointStore
from tests.training.helpers import MakeModel, MakeRecipe, at_forward, interrupt, metrics, run, same_state

FILES = ("MANIFEST.json", "momentum.safetensors", "state.json", "weights.safetensors")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_the_training_and_costs_nothing(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path, small_disk: Path
) -> None:
    recipe = make_recipe("train.checkpoint_steps=1")
    whole, stopped, resumed = make_model(), make_model(), make_model()
    run(whole, data, recipe, tmp_path / "whole")
    directory, ballast = small_disk / "run", small_disk / "ballast"

    def fill(_: object) -> None:
        free = os.statvfs(small_disk)
        ballast.write_bytes(bytes((free.f_bavail - 2) * free.f_frsize))

    at_forward(stopped, 8, fill)
    with pytest.raises(CheckpointError, match=r"cannot write checkpoint .*step-000000008.*No space left") as caught:
        run(stopped, data, recipe, directory)
    assert caught.value.exit_code == 4
    names = sorted(path.name for path in (directory / "checkpoints").iterdir())
    assert names == ["step-000000005", "step-000000006-running", "step-000000007-running"]
    ballast.unlink()
    run(resumed, data, recipe, directory, resume=True)
    assert same_state(whole, resumed)
    assert metrics(directory) == metrics(tmp_path / "whole")


def test_a_disk_that_becomes_read_only_ends_the_training(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, small_disk: Path
) -> None:
    def protect(_: object) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    model = make_model()
    at_forward(model, 7, protect)
    with pytest.raises(CheckpointError, match=r"cannot write checkpoint .*step-000000007.*Read-only"):
        run(model, data, make_recipe("train.checkpoint_steps=1"), small_disk / "run")
    newest = CheckpointStore(small_disk / "run" / "checkpoints").newest()
    assert newest is not None
    assert newest.state.step == 6


def test_any_damage_to_the_newest_costs_a_warning_but_no_bit(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = make_recipe("train.checkpoint_steps=3")
    whole, broken = make_model(), make_model()
    run(whole, data, recipe, tmp_path / "whole")
    at_forward(broken, 10, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(broken, data, recipe, tmp_path / "broken")
    draw = random.Random(0)
    for name in FILES:
        for is_flip in (True, False):
            directory = tmp_path / f"{name}-{is_flip}"
            shutil.copytree(tmp_path / "broken", directory)
            path = directory / "checkpoints" / "step-000000009-running" / name
            flipped = bytearray(path.read_bytes())
            flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
            path.unlink()
            if is_flip:
                path.write_bytes(flipped)
            caplog.clear()
            resumed = make_model()
            run(resumed, data, recipe, directory, resume=True)
            assert "step-000000009-running.corrupt" in caplog.text
            assert name in caplog.text
            assert same_state(whole, resumed)
            assert metrics(directory) == metrics(tmp_path / "whole")


def test_with_all_checkpoints_damaged_nothing_starts(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path
) -> None:
    run(make_model(), data, make_recipe(), tmp_path)
    for path in (tmp_path / "checkpoints").glob("*/weights.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    model = make_model()
    at_forward(model, 1, interrupt)
    with pytest.raises(CheckpointError, match=r"no checkpoint below .* is whole") as caught:
        run(model, data, make_recipe(), tmp_path, resume=True)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("name", FILES)
def test_a_pickle_with_a_true_digest_is_never_run(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path, name: str
) -> None:
    run(make_model(), data, make_recipe("train.epochs=1"), tmp_path)
    trace = tmp_path / "executed"
    payload = f"cos\nsystem\n(S'touch {trace}'\ntR.".encode()
    folder = tmp_path / "checkpoints" / "step-000000005"
    (folder / name).write_bytes(payload)
    if name != "MANIFEST.json":
        manifest = json.loads((folder / "MANIFEST.json").read_text())
        (folder / "MANIFEST.json").write_text(json.dumps({**manifest, name: sha256_bytes(payload)}))
    with pytest.raises(CheckpointError, match="is damaged"):
        run(make_model(), data, make_recipe("train.epochs=1"), tmp_path, resume=True)
    assert not trace.exists()
