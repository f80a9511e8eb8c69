"""Training on files of mixed sizes that workers decode: killed, stopped, and resumed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from ecd_deploy.data import DataSplits, load_data
from ecd_deploy.distill import PlainModel
from ecd_deploy.errors import DataError, Interrupted, Terminated
from ecd_deploy.recipe.recipe import Recipe, load_recipe
from tests.data.mixed_images import SIDE, files_config, make_images
from tests.training.helpers import at_forward, metrics, run, same_state

MODULE = "tests.training.test_files"
ROOT = Path(__file__).parents[2]
STEPS = 7  # of each of the two epochs


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    short = ("train.epochs=2", "train.batch_size=4", "train.checkpoint_steps=2", "train.trackers=[]")
    config = files_config(make_images(tmp_path / "images"), workers=2, random_resized_crop=(0.2, 1.0))
    return load_recipe("digits", short).model_copy(update={"data": config})


@pytest.fixture
def data(recipe: Recipe) -> DataSplits:
    return load_data(recipe.data, seed=recipe.seed)


def make_model() -> PlainModel:
    torch.manual_seed(0)
    features = 4 * (SIDE - 2) ** 2
    return PlainModel(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(features, 3))
    )


def worker_pids() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]


def test_killed_and_resumed_it_ends_with_the_same_bits(recipe: Recipe, data: DataSplits, tmp_path: Path) -> None:
    whole = make_model()
    result = run(whole, data, recipe, tmp_path / "whole")
    assert result.steps == 2 * STEPS
    broken = tmp_path / "broken"
    code = f"import sys; from {MODULE} import train_and_die; train_and_die(*sys.argv[1:])"
    command = [sys.executable, "-c", code, recipe.model_dump_json(), str(broken)]
    killed = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    resumed = make_model()
    run(resumed, data, recipe, broken, resume=True)
    assert same_state(whole, resumed)
    assert metrics(broken) == metrics(tmp_path / "whole")
    orphans = [int(pid) for pid in (broken / "workers").read_text().split()]
    assert len(orphans) == 2
    deadline = time.monotonic() + 20
    while any(is_running(pid) for pid in orphans) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(is_running(pid) for pid in orphans)


def train_and_die(recipe_json: str, directory: str) -> None:
    """Train until a step of the second epoch, leave the workers' processes in `workers`, and be killed."""

    def die(_: object) -> None:
        Path(directory, "workers").write_text(" ".join(map(str, worker_pids())))
        os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    recipe = Recipe.model_validate_json(recipe_json)
    model = make_model()
    at_forward(model, STEPS + 4, die)
    run(model, load_data(recipe.data, seed=recipe.seed), recipe, Path(directory))


def is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, Interrupted), (signal.SIGTERM, Terminated)])
def test_a_signal_to_all_processes_lets_the_step_end_and_saves_it(
    recipe: Recipe, data: DataSplits, tmp_path: Path, number: signal.Signals, kind: type[Interrupted]
) -> None:
    whole, stopped, resumed = make_model(), make_model(), make_model()
    run(whole, data, recipe, tmp_path / "whole")

    def stop_all(_: object) -> None:
        for pid in [*worker_pids(), os.getpid()]:
            subprocess.run(["kill", f"-{number.value}", str(pid)], check=True)

    at_forward(stopped, 3, stop_all)
    with pytest.raises(kind, match=f"{number.name} after step 3 of {2 * STEPS}; everything is saved"):
        run(stopped, data, recipe, tmp_path / "stopped")
    assert worker_pids() == []
    run(resumed, data, recipe, tmp_path / "stopped", resume=True)
    assert same_state(whole, resumed)


def test_a_file_that_vanishes_ends_the_training_and_its_return_lets_it_go_on(
    recipe: Recipe, data: DataSplits, tmp_path: Path
) -> None:
    assert data.train_files is not None
    path = data.train_files.paths[5]
    aside = path.with_name(".aside")
    whole, broken, resumed = make_model(), make_model(), make_model()
    run(whole, data, recipe, tmp_path / "whole")
    at_forward(broken, 3, lambda _: path.rename(aside))
    with pytest.raises(DataError, match=f"{path}: is not there any more"):
        run(broken, data, recipe, tmp_path / "broken")
    assert worker_pids() == []
    aside.rename(path)
    run(resumed, data, recipe, tmp_path / "broken", resume=True)
    assert same_state(whole, resumed)
