"""The functions that a Python program calls instead of a command, where a command does not show it."""

from __future__ import annotations

from pathlib import Path

import pytest

import ecd_deploy
from ecd_deploy.errors import RunDirectoryError, UsageError

RECIPE = ecd_deploy.Recipe(
    name="short",
    data=ecd_deploy.DataConfig(source="digits", train_limit=200, test_limit=20),
    student=ecd_deploy.StudentConfig(name="resnet8"),
    method=ecd_deploy.MethodConfig(name="plain"),
    train=ecd_deploy.TrainConfig(epochs=2, batch_size=60, trackers=(), threads=1),
)


def test_training_tells_of_its_progress_and_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    events: list[ecd_deploy.Event] = []
    result = ecd_deploy.train(RECIPE, tmp_path / "run", rehearsal=False, on_event=events.append)
    first, started, *middle, last = events
    assert first == ecd_deploy.StepStarted(step="train")
    assert started == ecd_deploy.TrainingStarted(epochs=2, batches_per_epoch=3, batches_done=0)
    assert [event.step for event in middle if isinstance(event, ecd_deploy.BatchEnded)] == [1, 2, 3, 4, 5, 6]
    records = [event.record for event in middle if isinstance(event, ecd_deploy.EpochEnded)]
    assert records[-1].score() == result.last
    assert isinstance(last, ecd_deploy.StepEnded)
    assert capfd.readouterr() == ("", "")
    again: list[ecd_deploy.Event] = []
    assert ecd_deploy.train(RECIPE, str(tmp_path / "run"), resume=True, on_event=again.append).steps == 6
    assert ecd_deploy.TrainingStarted(epochs=2, batches_per_epoch=3, batches_done=6) in again
    with pytest.raises(RunDirectoryError, match=r"run `ecd-deploy split .*` first"):
        ecd_deploy.export(tmp_path / "run")


def test_what_the_callback_raises_ends_the_training_and_is_not_changed(tmp_path: Path) -> None:
    def stop(event: ecd_deploy.Event) -> None:
        if isinstance(event, ecd_deploy.EpochEnded):
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        ecd_deploy.train(RECIPE, tmp_path / "run", rehearsal=False, on_event=stop)
    assert ecd_deploy.train(RECIPE, tmp_path / "run", resume=True).epochs == 2


def test_only_the_first_process_of_a_launch_runs_the_other_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UsageError, match=r"the first process of a launch calls this, and the others ecd_deploy\.train"):
        ecd_deploy.run(RECIPE, tmp_path / "run")
    assert not (tmp_path / "run").exists()
