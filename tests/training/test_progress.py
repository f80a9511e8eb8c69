from __future__ import annotations

import io

from rich.console import Console

from ecd_deploy.training.progress import TrainingProgress
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


def run(console: Console | None) -> None:
    with TrainingProgress(console, epochs=3, steps_per_epoch=10, steps_done=10) as progress:
        progress.start_epoch(2)
        for _ in range(10):
            progress.step()
        progress.finish_epoch(RECORD)


def test_a_plain_line_an_epoch_without_a_terminal() -> None:
    console = Console(file=io.StringIO(), width=40)
    run(console)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == (
        "resuming after step 10 of 30\n"
        "epoch 2/3  loss 1.5000  validation top-1: student 50.00%, teacher 62.50%  rate 0.1  2.0 s\n"
    )


def test_a_bar_with_the_steps_and_the_time_left_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    run(console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "epoch 2/3" in text
    assert "20/30" in text
    assert "left" in text
