"""The average of weights: its numbers, where it is used, and that it costs the host no wait."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate.accelerator import Accelerator
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ecd_deploy.compat.torch import move_towards
from ecd_deploy.data import DataSplits, ImageTensors
from ecd_deploy.distill import PlainModel
from ecd_deploy.models import build_student
from ecd_deploy.training import load_weights
from ecd_deploy.training.checkpoints.store import CheckpointStore
from ecd_deploy.training.evaluation import evaluate
from ecd_deploy.training.steps.average import WeightAverage
from tests.fake_cuda import Crossings, move
from tests.small import present
from tests.training.helpers import MakeModel, MakeRecipe, metrics, run, same_state


def test_it_is_the_written_out_recursion_over_weights_and_statistics() -> None:
    torch.manual_seed(0)
    model = PlainModel(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
    average = WeightAverage(model, 0.5)
    expected = {name: value.double().clone() for name, value in model.student.state_dict().items()}
    model.train()
    for step in range(12):
        model.student(torch.randn(5, 3))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.begin_step(step)
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in model.student.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double()
    found = average.student.state_dict()
    assert found.pop("1.num_batches_tracked") == 12
    for name, value in found.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert not any(part.training for part in average.student.modules())


def test_tied_weights_stay_tied() -> None:
    layer = nn.Linear(3, 3)
    average = WeightAverage(PlainModel(nn.Sequential(layer, nn.ReLU(), layer)), 0.9)
    assert len(average.tensors) == 2
    assert average.student.get_submodule("0") is average.student.get_submodule("2")


def test_it_is_what_is_evaluated_and_deployed(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path
) -> None:
    """And the training is that without it; so is the teacher's accuracy."""
    with_average, without = make_model(), make_model()
    run(with_average, data, make_recipe("train.ema_decay=0.9"), tmp_path / "with")
    run(without, data, make_recipe(), tmp_path / "without")
    assert same_state(with_average, without)
    lines = metrics(tmp_path / "with")
    usual = [line["teacher_validation_top1"] for line in metrics(tmp_path / "without")]
    assert [line["teacher_validation_top1"] for line in lines] == usual

    deployed = make_model()
    load_weights(tmp_path / "with", "last", deployed)
    newest = present(CheckpointStore(tmp_path / "with" / "checkpoints").newest())
    state = deployed.student.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in newest.average.items())
    assert not same_state(deployed.student, without.student)
    assert same_state(deployed.auxiliary()["teacher"], without.auxiliary()["teacher"])
    images = ImageTensors.of(present(data.validation))
    found = evaluate(PlainModel(deployed.student), images, data.normalisation, Accelerator(), 64)
    assert found.top1.student == lines[-1]["validation_top1"]


def test_neither_average_nor_clipping_lets_the_host_wait() -> None:
    model = PlainModel(build_student("resnet8", num_classes=4))
    with FakeTensorMode(allow_non_fake_inputs=True):
        move(model)
        values = [parameter.detach() for parameter in model.parameters()]
        averages = [torch.empty_like(value) for value in values]
        rate = torch.zeros((), device="cuda")
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter)
        with Crossings() as found:
            rate.fill_(0.5)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            move_towards(averages, values, rate)
    assert found.names == set()
