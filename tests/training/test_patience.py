from __future__ import annotations

from pathlib import Path

import pytest

from ecd_deploy.data import DataSplits
from ecd_deploy.errors import RecipeError
from ecd_deploy.recipe.train import TrainConfig
from ecd_deploy.training.scores import EpochRecord, is_finished
from tests.training.helpers import MakeModel, MakeRecipe, metrics, run


def history(*top1s: float) -> tuple[EpochRecord, ...]:
    return tuple(
        EpochRecord(epoch=n, step=n, validation_top1=top1, loss=1, student_loss=1, learning_rate=0.1, seconds=1)
        for n, top1 in enumerate(top1s, start=1)
    )


@pytest.mark.parametrize(
    ("top1s", "patience", "finished"),
    [
        ((), 1, False),
        ((0.5,), 1, False),
        ((0.5, 0.4), 1, True),
        ((0.5, 0.4), 2, False),
        ((0.5, 0.5, 0.5), 2, True),  # as good is not better
        ((0.5, 0.4, 0.6), 2, False),
        ((0.5, 0.4, 0.3, 0.2), None, False),
        ((0.1, 0.2, 0.3, 0.4, 0.5), 3, True),  # all epochs are done
    ],
)
def test_a_training_ends_when_its_patience_does(top1s: tuple[float, ...], patience: int | None, finished: bool) -> None:
    assert is_finished(history(*top1s), TrainConfig(epochs=5, patience=patience)) is finished


def test_it_ends_early_and_a_resume_adds_nothing(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path
) -> None:
    options = ("train.epochs=40", "train.patience=2")
    result = run(make_model(), data, make_recipe(*options), tmp_path)
    top1s = [line["validation_top1"] for line in metrics(tmp_path)]
    assert len(top1s) == result.epochs < 40
    assert top1s.index(max(top1s)) == result.epochs - 3
    again = run(make_model(), data, make_recipe(*options), tmp_path, resume=True)
    assert again.epochs == result.epochs
    assert len(metrics(tmp_path)) == result.epochs


def test_patience_waits_for_the_accuracy_that_selects() -> None:
    top1s, balanced = (0.5, 0.6, 0.7), (0.5, 0.4, 0.4)
    records = tuple(
        record.model_copy(update={"validation_balanced_accuracy": accuracy})
        for record, accuracy in zip(history(*top1s), balanced, strict=True)
    )
    assert is_finished(records, TrainConfig(epochs=5, patience=2, select="balanced_accuracy"))
    assert not is_finished(records, TrainConfig(epochs=5, patience=2))


def test_patience_needs_a_validation_split(make_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match=r"train\.patience 2 is counted on the validation split"):
        make_recipe("train.patience=2", "data.validation_fraction=0.0", "train.select=last")
