"""A student distilled from a run of this program: what is loaded, what a resume gives, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ecd_deploy.baselines.distillation import DistilledModel
from ecd_deploy.data import load, load_data
from ecd_deploy.errors import CheckpointError, Interrupted, RecipeError, RunDirectoryError
from ecd_deploy.pipelines.run import run_train
from ecd_deploy.pipelines.steps.train import training_model
from ecd_deploy.recipe.recipe import Recipe, load_recipe
from ecd_deploy.training import load_weights, train
from tests.data.mixed_images import files_config, make_images
from tests.training.helpers import at_forward, interrupt, same_state

TINY = ("data.train_limit=60", "data.test_limit=20", "train.epochs=2", "train.batch_size=18", "train.trackers=[]")


def recipe(*overrides: str) -> Recipe:
    return load_recipe("digits", (*TINY, *overrides))


def distilled(run: Path, *overrides: str) -> Recipe:
    losses = "method.pretrained.losses=['crd', 'ft']"
    run_of_teacher = f"method.pretrained.run={run}"
    return recipe("method.name=distil", run_of_teacher, losses, "method.pretrained.negatives=8", *overrides)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "teacher"
    run_train(recipe("method.name=ecd", "method.kernels=2"), root, resume=False)
    return root


def test_the_teacher_is_the_run_s_trained_student_and_the_start_is_the_baseline_s(teacher: Path) -> None:
    config = distilled(teacher)
    data = load_data(config.data, seed=config.seed)
    model = training_model(config, data)
    assert isinstance(model, DistilledModel)
    trained = training_model(recipe("method.name=ecd", "method.kernels=2"), data)
    load_weights(teacher, "last", trained)
    assert same_state(model.pretrained.network, trained.student)
    assert same_state(model.student, training_model(recipe("method.name=plain"), data).student)


def test_a_resume_has_the_bits_of_an_uninterrupted_training(teacher: Path, tmp_path: Path) -> None:
    config = distilled(teacher)
    data = load_data(config.data, seed=config.seed)
    whole, broken, resumed = (training_model(config, data) for _ in range(3))
    train(whole, data, config, tmp_path / "whole", resume=False)
    at_forward(broken, 5, interrupt)
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        train(broken, data, config, tmp_path / "broken", resume=False)
    assert isinstance(resumed, DistilledModel)
    with torch.no_grad():  # the checkpoint has the teacher too
        resumed.pretrained.get_parameter("network.fc.weight").zero_()
    train(resumed, data, config, tmp_path / "broken", resume=True)
    assert same_state(whole, resumed)


def test_crd_knows_the_labels_of_all_files_and_not_of_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_SAMPLE_IMAGES", 6)
    files = files_config(make_images(tmp_path / "images"))
    plain = recipe("method.name=plain", "train.epochs=1").model_copy(update={"data": files})
    run_train(plain, tmp_path / "teacher", resume=False)
    config = distilled(tmp_path / "teacher", "train.epochs=1").model_copy(update={"data": files})
    data = load_data(files, seed=config.seed)
    assert data.train_files is not None
    assert len(data.train_files) > len(data.train) == 6
    model = training_model(config, data)
    assert isinstance(model, DistilledModel)
    assert model.get_buffer("transfers.crd.labels").tolist() == data.train_files.labels.tolist()
    train(model, data, config, tmp_path / "run", resume=False)


def test_runs_that_cannot_teach_are_refused(teacher: Path, tmp_path: Path) -> None:
    data = load_data(recipe().data, seed=0)
    with pytest.raises(RunDirectoryError, match=r"method\.pretrained\.run: .* is not a run directory"):
        training_model(distilled(tmp_path / "absent"), data)
    other = distilled(teacher, "seed=1")
    with pytest.raises(RunDirectoryError, match="was trained on other images, or with another validation split"):
        training_model(other, load_data(other.data, seed=1))
    checkpoint = sorted((teacher / "checkpoints").glob("step-*"))[-1] / "weights.safetensors"
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with pytest.raises(CheckpointError):
            training_model(distilled(teacher), data)
    finally:
        checkpoint.write_bytes(content)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("method.name=distil",), r"needs \[method\.pretrained\]"),
        (("method.name=plain", "method.pretrained.run=x", "method.pretrained.losses=['kd']"), "not 'plain'"),
        (("method.pretrained.run=x", "method.pretrained.losses=['kd', 'kd']"), "names a loss twice"),
        (
            ("method.pretrained.run=x", "method.pretrained.losses=['kd']", "method.pretrained.factors=[1.0, 2.0]"),
            "as many",
        ),
        (("method.pretrained.run=x", "method.pretrained.loses=['kd']"), "did you mean 'losses'"),
        (("method.branches=4",), "branches 4 has no effect"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(*overrides)


def test_rkd_has_distance_50_and_angle_25_unless_told() -> None:
    losses = ("method.name=distil", "method.pretrained.run=x", "method.pretrained.losses=['rkd']")
    config, other = recipe(*losses), recipe(*losses, "method.pretrained.rkd=[25.0, 50.0]")
    assert config.method.pretrained is not None
    assert other.method.pretrained is not None
    assert (config.method.pretrained.rkd, other.method.pretrained.rkd) == ((50.0, 25.0), (25.0, 50.0))
    assert '"rkd":[50.0,25.0]' in config.canonical_json()
    assert '"rkd":[25.0,50.0]' in other.canonical_json()
