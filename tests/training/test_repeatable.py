"""The operations of each variant's training step are the same in every step, with the same numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ecd_deploy.config import TrainConfig
from ecd_deploy.data import Batch
from ecd_deploy.distill import build_objective, build_training_model
from ecd_deploy.distill.batch_norm import TeacherBatchNorm2d
from ecd_deploy.method_config import MethodConfig
from ecd_deploy.models import build_student
from ecd_deploy.training.acceleration import build_accelerator
from ecd_deploy.training.cuda_graph import GraphedWork
from ecd_deploy.training.losses import EpochLosses
from ecd_deploy.training.optimizer import build_optimizer, set_rate
from ecd_deploy.training.repeatable import find_change
from ecd_deploy.training.step import StepWork
from tests.training.tape import TapeRecorder
from tests.variants import VARIANTS


@pytest.fixture(autouse=True)
def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher's batch norm is torch's, as it is on a GPU; its convolution is the same there as on a CPU."""
    monkeypatch.setattr(TeacherBatchNorm2d, "_is_quick", lambda *_: False)


def make_work(variant: str, *, rate_on_device: bool = True) -> StepWork:
    torch.manual_seed(0)
    method = MethodConfig.model_validate({"kernels": 3, **VARIANTS[variant]})
    config = TrainConfig(learning_rate=0.05)
    model = build_training_model(method, build_student("resnet8", num_classes=4), example=torch.randn(2, 3, 12, 12))
    accelerator = build_accelerator(config)
    optimizer = build_optimizer(model, config)
    if rate_on_device:
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(group["lr"])
    losses = EpochLosses(accelerator)
    losses.begin_epoch(1)
    return StepWork(
        model=model.train(),
        optimizer=accelerator.prepare(optimizer),
        accelerator=accelerator,
        objective=build_objective(method),
        losses=losses,
    )


def make_batch(seed: int) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    images, labels = torch.randn(4, 3, 12, 12, generator=draw), torch.randint(4, (4,), generator=draw)
    return Batch(images, labels, torch.arange(4), 4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_steps_are_the_same_operations_and_a_recording_of_one_is_every_other(variant: str) -> None:
    works = [make_work(variant), make_work(variant)]
    recorder = TapeRecorder()
    graphed = GraphedWork(works[1], recorder)
    for step in range(3):
        for work, do in zip(works, (works[0], graphed), strict=True):
            set_rate(work.optimizer, 0.1 / (step + 1))
            work.losses.begin_step(step + 1, 4)
            do(make_batch(step))
    assert recorder.recordings == 1
    for eager, recorded in zip(works[0].changed(), works[1].changed(), strict=True):
        assert torch.equal(eager, recorded)


def test_the_step_s_numbers_are_the_only_ones_that_change() -> None:
    """The planted fault: a rate that is no tensor is a number among the operations, and its change is found."""
    work = make_work("ecd", rate_on_device=False)
    step = iter(range(9))

    def do() -> None:
        number = next(step)
        set_rate(work.optimizer, 0.1 / (number + 1))
        work(make_batch(number))

    assert (
        find_change(work.model, do) == "its operations differ from step to step, the first at aten._fused_sgd_.default"
    )
    steady = make_work("ecd")
    assert find_change(steady.model, lambda: steady(make_batch(0))) is None


def test_another_size_of_batch_is_other_operations() -> None:
    work = make_work("plain")
    whole = make_batch(0)
    less = replace(whole, images=whole.images[:2], labels=whole.labels[:2], indices=whole.indices[:2], step_images=2)
    batches = iter((whole, less))
    assert "its operations differ" in (find_change(work.model, lambda: work(next(batches))) or "")
