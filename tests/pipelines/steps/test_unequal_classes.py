"""Recipes for unequal classes by the real command: what fits no data is refused, and the words at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecd_deploy.pipelines.report.words import describe_training
from ecd_deploy.training import EpochScore, TrainingResult
from tests.commands import run_command


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ("train.class_weights={eleven = 2}",),
            'train.class_weights."eleven": there is no such class; there are 0,',
        ),
        (
            ("train.class_weights=balanced", "data.train_limit=8", "data.validation_fraction=0", "train.select=last"),
            "train.class_weights 'balanced' needs training images of each class, and there are none of ",
        ),
    ],
)
def test_what_does_not_fit_the_data_ends_with_2_and_one_line(
    options: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    words = [word for option in options for word in ("--set", option)]
    ended = run_command(["train", "run", "--recipe", "digits", *words], cwd=tmp_path)
    assert ended.code == 2
    assert told in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_the_accuracy_that_chose_the_best_epoch_is_said() -> None:
    last, best = (
        EpochScore(epoch=epoch, step=epoch, validation_top1=top1, validation_balanced_accuracy=balanced)
        for epoch, top1, balanced in ((2, 0.9, 0.3), (1, 0.8, 0.6))
    )
    result = TrainingResult(epochs=2, steps=2, last=last, best=best, seconds=1, threads=1, processes=1)
    assert describe_training(result, "best") == "validation top-1: last 90.00%, best 80.00% (epoch 1)"
    said = describe_training(result, "balanced_accuracy")
    assert said.endswith("(epoch 1); balanced accuracy, by which it is the best: last 30.00%, best 60.00%")
