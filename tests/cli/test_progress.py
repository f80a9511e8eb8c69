from __future__ import annotations

import io

from rich.console import Console

from ecd_deploy.cli.text.progress import ShownProgress
from ecd_deploy.pipelines.record.progress import Rehearsed, StepEnded
from ecd_deploy.training.progress import BatchEnded, EpochEnded, StoppedEarly, TrainingStarted
from ecd_deploy.training.scores import EpochRecord

RECORD = EpochRecord(
    epoch=2,
    step=20,
    validation_top1=0.5,
    teacher_validation_top1=0.625,
    loss=1.5,
    student_loss=0.75,
    learning_rate=0.1,
    seconds=2.0,
)


def show(console: Console) -> str:
    with ShownProgress(console) as shown:
        shown(Rehearsed(words="rehearsed [x]"))
        shown(TrainingStarted(epochs=3, batches_per_epoch=10, batches_done=10))
        for step in range(11, 21):
            shown(BatchEnded(epoch=2, step=step))
        shown(EpochEnded(record=RECORD, epochs=3))
        shown(StoppedEarly(patience=1))
        shown(StepEnded(step="train", seconds=1.0))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_plain_line_an_epoch_without_a_terminal() -> None:
    assert show(Console(file=io.StringIO(), width=40)) == (
        "rehearsed [x]\n"
        "resuming after step 10 of 30\n"
        "epoch 2/3  loss 1.5000  validation top-1: student 50.00%, teacher 62.50%  rate 0.1  2.0 s\n"
        "ended after 1 epochs without a better one (train.patience)\n"
    )


def test_a_bar_with_the_steps_and_the_time_left_on_a_terminal() -> None:
    text = show(Console(file=io.StringIO(), width=120, force_terminal=True))
    assert "epoch 2/3" in text
    assert "20/30" in text
    assert "left" in text
