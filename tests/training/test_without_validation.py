"""Training on every image: no accuracy by epoch, no best epoch, and all else as ever."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import Tensor, nn

from ecd_deploy.data import DataSplits, load_data
from ecd_deploy.errors import CheckpointError
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.training import load_weights, train
from ecd_deploy.training.checkpoints.store import CheckpointStore
from tests.training.helpers import MakeModel, MakeRecipe, at_forward, interrupt, metrics, run, same_state

EVERYTHING = ("data.validation_fraction=0", "train.select=last")


@pytest.fixture
def recipe(make_recipe: MakeRecipe) -> Recipe:
    return make_recipe(*EVERYTHING, "train.trackers=['tensorboard']")


@pytest.fixture
def everything(recipe: Recipe) -> DataSplits:
    return load_data(recipe.data, seed=recipe.seed)


def test_no_epoch_has_an_accuracy_and_none_is_best(
    make_model: MakeModel, recipe: Recipe, everything: DataSplits, tmp_path: Path
) -> None:
    model = make_model()
    evaluations: list[nn.Module] = []

    def note_evaluation(module: nn.Module, _inputs: tuple[Tensor, ...]) -> None:
        if not module.training:
            evaluations.append(module)

    model.register_forward_pre_hook(note_evaluation)
    result = train(model, everything, recipe, tmp_path, resume=False)
    assert evaluations == []  # on no image, of whatever split
    assert result.best is None
    assert result.last.model_dump(exclude_none=True) == {"epoch": 3, "step": 15}
    assert not any("top1" in key for line in metrics(tmp_path) for key in line)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert "student_loss" in tags
    assert not any("top1" in tag for tag in tags)


def test_the_last_weights_are_loaded_and_the_best_refused(
    make_model: MakeModel, recipe: Recipe, everything: DataSplits, tmp_path: Path
) -> None:
    model, last = make_model(), make_model()
    run(model, everything, recipe, tmp_path)
    load_weights(tmp_path, "last", last)
    assert same_state(model, last)
    with pytest.raises(CheckpointError, match=r"data\.validation_fraction 0.*train\.select 'last'"):
        load_weights(tmp_path, "best", make_model())
    names = [path.name for path in CheckpointStore(tmp_path / "checkpoints").paths()]
    assert names == ["step-000000010", "step-000000015"]


@pytest.mark.parametrize("forward", [3, 6, 13])
def test_resuming_gives_the_bits_of_an_uninterrupted_training(
    make_model: MakeModel, recipe: Recipe, everything: DataSplits, tmp_path: Path, forward: int
) -> None:
    whole, broken, resumed = make_model(), make_model(), make_model()
    expected = run(whole, everything, recipe, tmp_path / "whole")
    at_forward(broken, forward, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(broken, everything, recipe, tmp_path / "broken")
    result = run(resumed, everything, recipe, tmp_path / "broken", resume=True)
    assert same_state(whole, resumed)
    assert metrics(tmp_path / "broken") == metrics(tmp_path / "whole")
    assert result.model_dump(exclude={"seconds"}) == expected.model_dump(exclude={"seconds"})


def test_within_the_first_epoch_there_are_no_weights_of_either_kind(
    make_model: MakeModel, make_recipe: MakeRecipe, everything: DataSplits, tmp_path: Path
) -> None:
    model = make_model()
    at_forward(model, 3, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(model, everything, make_recipe(*EVERYTHING, "train.checkpoint_steps=1"), tmp_path)
    with pytest.raises(CheckpointError, match="within an epoch"):
        load_weights(tmp_path, "last", make_model())
