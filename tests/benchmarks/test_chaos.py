from __future__ import annotations

import random
from pathlib import Path

from benchmarks.chaos import differences, finish, newest, torment

RECIPE = (
    "train.epochs=60",
    "train.checkpoint_steps=2",
    "data.train_limit=300",
    "method.kernels=2",
    "method.stages=[3]",
    "method.name=plain",
    *("train.optimizer=adamw", "train.learning_rate=0.003", "train.ema_decay=0.99", "train.clip_norm=1.0"),
    *("augment.policy=randaugment", "augment.random_erasing=0.5", "augment.mixup=0.2", "augment.cutmix=1.0"),
    *("train.sampling=balanced", "train.select=balanced_accuracy"),
)
MOST_KILLS = 24


def test_a_training_that_is_killed_gives_the_bits_of_one_that_is_not(tmp_path: Path) -> None:
    draw = random.Random(1)
    undisturbed, tormented = tmp_path / "undisturbed", tmp_path / "tormented"
    finish(undisturbed, RECIPE)
    kills = torment(tormented, RECIPE, ("start-up", "save"), draw)
    while not kills[-1].in_save and len(kills) < MOST_KILLS:  # a save on a fast disk may end before the kill
        kills += torment(tormented, RECIPE, ("save",), draw)
    finish(tormented, RECIPE)
    assert kills[-1].in_save
    assert differences(undisturbed, tormented) == []
    assert (newest(tormented) / "average.safetensors").is_file()
    metrics = tormented / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"epoch":8,', '"epoch":9,'))
    assert differences(undisturbed, tormented) == ["metrics.jsonl"]
