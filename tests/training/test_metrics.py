from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from ecd_deploy.errors import ArtefactError
from ecd_deploy.recipe.recipe import load_recipe
from ecd_deploy.training.metrics import MetricsLog
from ecd_deploy.training.scores import EpochRecord

UNTRACKED = load_recipe("digits", ("train.trackers=[]",))
TRACKED = load_recipe("digits")


def record(epoch: int) -> EpochRecord:
    return EpochRecord(
        epoch=epoch, step=10 * epoch, validation_top1=0.5, loss=1.5, student_loss=0.75, learning_rate=0.1, seconds=2.0
    )


def test_one_line_an_epoch(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, (), UNTRACKED) as log:
        log.append(record(1))
        log.append(record(2))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert lines[0]["loss"] == 1.5
    assert "teacher_loss" not in lines[0]
    assert not (tmp_path / "tensorboard").exists()


def test_lines_beyond_the_checkpoint_go_and_lost_ones_come_back(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, (), UNTRACKED) as log:
        log.append(record(2))
        log.append(record(3))
    with MetricsLog(tmp_path, (record(1), record(2)), UNTRACKED) as log:
        log.append(record(3))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


def test_tensorboard_shows_each_value_once_after_a_resume(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, (), TRACKED) as log:
        log.append(record(1))
        log.append(record(2))
    with MetricsLog(tmp_path, (record(1),), TRACKED) as log:
        log.append(record(2))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"validation_top1", "loss", "student_loss", "learning_rate", "seconds"}
    assert [event.step for event in events.Scalars("loss")] == [10, 20]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(ArtefactError, match=r"cannot write .*run"):
        MetricsLog(tmp_path / "run", (), UNTRACKED)
