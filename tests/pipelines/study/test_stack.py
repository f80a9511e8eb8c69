"""`compare --stack`: the same runs as one by one but for rounding, interrupted and resumed, and when it is refused."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from ecd_deploy.errors import Terminated, TrainingError, UsageError
from ecd_deploy.pipelines.record.run_directory import read_run
from ecd_deploy.pipelines.study.run import ArmRun
from ecd_deploy.pipelines.study.runner import compare
from ecd_deploy.pipelines.study.study import Arm, Study
from ecd_deploy.training import TrainingResult
from ecd_deploy.training.steps import losses

SET = (
    "data.train_limit=60",
    "data.test_limit=40",
    "data.horizontal_flip=true",
    "train.epochs=2",
    "train.batch_size=16",
    "train.trackers=[]",
    "train.warmup_epochs=0.0",
    "train.threads=1",
    "method.kernels=2",
)
TRAINED = Arm(name="trained", baseline="trained", set=("method.name=plain",))


class InDouble(nn.Module):
    """A student that computes in float64, so that rounding shows far behind the comma."""

    def __init__(self, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(6, num_classes)
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        features = self.norm(self.stem(images.double())).relu()
        logits: Tensor = self.linear(self.dropout(features.mean(dim=(2, 3))))
        return logits


def in_double(num_classes: int, in_channels: int) -> nn.Module:
    assert in_channels == 1
    return InDouble(num_classes)


def with_dropout(num_classes: int, in_channels: int) -> nn.Module:
    assert in_channels == 1
    return InDouble(num_classes, dropout=0.5)


def with_prelu(num_classes: int, in_channels: int) -> nn.Module:
    """Of bf16, and in a stack with a weight of float32."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 6, 3), nn.PReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, num_classes)
    )


class Branching(InDouble):
    """What it computes depends on the values."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits if logits.mean() > 0 else logits * 2


def branching(num_classes: int, in_channels: int) -> nn.Module:
    assert in_channels == 1
    return Branching(num_classes)


class WithANumberOfItsOwn(InDouble):
    """Its scale is neither a parameter nor a buffer, so a stack would take the first one's."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.scale = 1 + float(torch.rand(()))

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * self.scale


def with_a_number_of_its_own(num_classes: int, in_channels: int) -> nn.Module:
    assert in_channels == 1
    return WithANumberOfItsOwn(num_classes)


class Signalling(InDouble):
    """Its process gets a SIGTERM in one of its forwards in training."""

    forwards_left = -1

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            Signalling.forwards_left -= 1
            if Signalling.forwards_left == 0:
                os.kill(os.getpid(), signal.SIGTERM)
        return super().forward(images)


def signalling(num_classes: int, in_channels: int) -> nn.Module:
    assert in_channels == 1
    return Signalling(num_classes)


def tiny(*arms: Arm, seeds: tuple[int, ...] = (0, 1), extra: tuple[str, ...] = ()) -> Study:
    return Study(name="tiny", recipe="digits", seeds=seeds, baseline=arms[0].name, set=(*SET, *extra), arms=arms)


def metrics(out: Path, arm: str, seed: int) -> list[dict[str, Any]]:
    lines = (out / arm / f"seed-{seed}" / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def recorded(out: Path, arm: str, seed: int) -> TrainingResult:
    return read_run(out / arm / f"seed-{seed}").read_json("training.json", TrainingResult)


def run(study: Study, out: Path, stack: int, *, resume: bool = False) -> str:
    text = io.StringIO()
    compare(study, out, resume=resume, stack=stack, place="here", console=Console(file=text, width=200))
    return text.getvalue()


def test_stacked_runs_are_those_by_themselves(tmp_path: Path) -> None:
    plain = Arm(name="plain", set=(f"student.name={__name__}:in_double", "method.name=plain"))
    averaged = ("train.ema_decay=0.9", "train.clip_norm=1.0")
    study = tiny(plain, seeds=(0, 1, 2), extra=averaged)
    run(study, tmp_path / "alone", 1)
    assert "one by one" not in run(study, tmp_path / "stacked", 3)
    for seed in study.seeds:
        found, expected = metrics(tmp_path / "stacked", "plain", seed), metrics(tmp_path / "alone", "plain", seed)
        assert len(found) == 2
        for line, other in zip(found, expected, strict=True):
            assert line.pop("validation_recall") == other.pop("validation_recall")
            assert line == pytest.approx(other, rel=1e-12)
        others = tuple(f"plain/seed-{other}" for other in study.seeds if other != seed)
        assert recorded(tmp_path / "stacked", "plain", seed).stacked_with == others
        arms = [
            read_run(tmp_path / place / "plain" / f"seed-{seed}").read_json("arm.json", ArmRun)
            for place in ("stacked", "alone")
        ]
        assert arms[0].last == arms[1].last
        assert (arms[0].best, arms[0].initial_student) == (arms[1].best, arms[1].initial_student)
        assert (arms[0].peak_memory_mib, arms[1].stacked_with) == (None, ())
    assert "3 runs were trained in the same steps as others" in (tmp_path / "stacked" / "study.md").read_text()


def test_like_arms_with_teachers_are_stacked_in_float32(tmp_path: Path) -> None:
    losses = Arm(name="mutual", set=("method.name=joint", "method.logits=mutual"))
    study = tiny(TRAINED, Arm(name="joint", set=("method.name=joint",)), losses, seeds=(0,), extra=("train.epochs=1",))
    run(study, tmp_path / "alone", 1)
    assert "one by one" not in run(study, tmp_path / "stacked", 4)
    for arm, others in (("trained", ()), ("joint", ("mutual/seed-0",)), ("mutual", ("joint/seed-0",))):
        (found,), (expected,) = (metrics(tmp_path / place, arm, 0) for place in ("stacked", "alone"))
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert found["teacher_loss" if others else "loss"] != 0
        assert recorded(tmp_path / "stacked", arm, 0).stacked_with == others


def test_a_run_that_fails_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = losses.EpochLosses.check

    def check(self: losses.EpochLosses, step: int) -> None:
        calls.append(step)
        if len(calls) == 4:  # the second run's second step
            raise TrainingError("planted")
        real(self, step)

    calls: list[int] = []
    monkeypatch.setattr(losses.EpochLosses, "check", check)
    study = tiny(Arm(name="plain", set=(f"student.name={__name__}:in_double", "method.name=plain")))
    with pytest.raises(TrainingError, match=r"1 of 2 runs failed:\n  plain, seed 1: planted"):
        run(study, tmp_path, 2)
    assert len(metrics(tmp_path, "plain", 0)) == 2
    assert metrics(tmp_path, "plain", 1) == []
    monkeypatch.undo()
    run(study, tmp_path, 2, resume=True)
    assert len(metrics(tmp_path, "plain", 1)) == 2


@pytest.mark.parametrize("resumed", [1, 2])
def test_a_signal_lets_all_runs_save_after_the_same_step(resumed: int, tmp_path: Path) -> None:
    study = tiny(Arm(name="plain", set=(f"student.name={__name__}:signalling", "method.name=plain")))
    run(study, tmp_path / "whole", 2)
    Signalling.forwards_left = 9  # 3 of the trial, then in the second of two epochs of four steps
    with pytest.raises(Terminated, match="SIGTERM after step 6 of 8; everything is saved"):
        run(study, tmp_path / "stopped", 2)
    for seed in study.seeds:
        assert [line["step"] for line in metrics(tmp_path / "stopped", "plain", seed)] == [4]
        checkpoints = (tmp_path / "stopped" / "plain" / f"seed-{seed}" / "checkpoints").iterdir()
        assert max(path.name for path in checkpoints) == "step-000000006-running"
    run(study, tmp_path / "stopped", resumed, resume=True)
    for seed in study.seeds:
        found, expected = metrics(tmp_path / "stopped", "plain", seed), metrics(tmp_path / "whole", "plain", seed)
        if resumed == 2:
            assert found == expected  # bit by bit
        assert [line["loss"] for line in found] == pytest.approx([line["loss"] for line in expected], rel=1e-12)
        assert recorded(tmp_path / "stopped", "plain", seed).stacked_with == (f"plain/seed-{1 - seed}",)


@pytest.mark.parametrize(
    ("student", "extra", "reason"),
    [
        ("with_dropout", (), "the network draws random numbers in training"),
        ("branching", (), "the network cannot be stacked"),
        ("in_double", ("train.gradient_accumulation=2",), "train.gradient_accumulation cuts the batches"),
        (
            "with_prelu",
            ("train.mixed_precision=bf16",),
            "train.mixed_precision 'bf16' cannot be cast to within a stack",
        ),
    ],
)
def test_what_cannot_be_stacked_is_trained_one_by_one(
    student: str, extra: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    study = tiny(Arm(name="plain", set=(f"student.name={__name__}:{student}", "method.name=plain")), extra=extra)
    text = run(study, tmp_path, 2)
    assert f"plain, seed 0; plain, seed 1: trained one by one, for {reason}" in text
    assert [len(metrics(tmp_path, "plain", seed)) for seed in study.seeds] == [2, 2]
    assert recorded(tmp_path, "plain", 0).stacked_with == ()


def test_a_stack_trains_in_bf16(tmp_path: Path) -> None:
    extra = ("train.mixed_precision=bf16", "train.epochs=1", "data.train_limit=30")
    study = tiny(Arm(name="plain", set=("method.name=plain",)), extra=extra)
    run(study, tmp_path, 2)
    assert recorded(tmp_path, "plain", 0).stacked_with == ("plain/seed-1",)
    assert [len(metrics(tmp_path, "plain", seed)) for seed in study.seeds] == [1, 1]


def test_a_network_that_a_stack_changes_is_trained_by_itself(tmp_path: Path) -> None:
    study = tiny(Arm(name="plain", set=(f"student.name={__name__}:with_a_number_of_its_own", "method.name=plain")))
    text = run(study, tmp_path, 2)
    assert "one by one, for stacked, the gradient of student.stem.weight of the network is not what it is by" in text


@pytest.mark.parametrize("backend", ["chunked", "triton"])
def test_only_the_grouped_backend_is_stacked(backend: str, tmp_path: Path) -> None:
    extra = (f"method.backend={backend}", "train.epochs=1", "data.train_limit=30")
    text = run(tiny(Arm(name="ecd"), extra=extra), tmp_path, 2)
    assert f"method.backend '{backend}' computes one network; 'grouped' computes several" in text


def test_stacks_of_jobs_on_slurm_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--stack trains runs in one process"):
        compare(tiny(Arm(name="ecd")), tmp_path, resume=False, stack=2, place="local", console=Console(quiet=True))


@pytest.mark.slow
@pytest.mark.parametrize("resumed", [1, 2])
def test_the_command_is_killed_and_resumed(resumed: int, tmp_path: Path) -> None:
    """By itself and in a stack, from a checkpoint that a stack wrote."""
    study = tmp_path / "study.toml"
    changes = [*SET, "train.epochs=3", "method.name=plain", "train.checkpoint_steps=1"]
    study.write_text(
        f'name = "killed"\nrecipe = "digits"\nseeds = [0, 1]\nbaseline = "plain"\nset = {json.dumps(changes)}\n'
        f'[[arms]]\nname = "plain"\nset = ["student.name={__name__}:in_double"]\n'
    )
    command = [sys.executable, "-m", "ecd_deploy", "compare", str(study), "--stack"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])}

    def start(out: str, stack: int, *more: str) -> subprocess.Popen[str]:
        words = [*command, str(stack), "--out", str(tmp_path / out), *more]
        return subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=tmp_path
        )

    whole = start("whole", 2)
    text, _ = whole.communicate(timeout=240)
    assert whole.returncode == 0, text
    killed = start("killed", 2)
    logs = [tmp_path / "killed" / "plain" / f"seed-{seed}" / "metrics.jsonl" for seed in (0, 1)]
    deadline = time.monotonic() + 200
    while not all(log.is_file() and log.read_text() for log in logs) and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGTERM)
    text, _ = killed.communicate(timeout=120)
    assert killed.returncode in (143, 0), text
    again = start("killed", resumed, "--resume")
    text, _ = again.communicate(timeout=240)
    assert again.returncode == 0, text
    for seed in (0, 1):
        found, expected = metrics(tmp_path / "killed", "plain", seed), metrics(tmp_path / "whole", "plain", seed)
        assert [line["loss"] for line in found] == pytest.approx([line["loss"] for line in expected], rel=1e-12)
        if resumed == 2:
            assert found == expected  # bit by bit
        assert recorded(tmp_path / "killed", "plain", seed).stacked_with == (f"plain/seed-{1 - seed}",)
