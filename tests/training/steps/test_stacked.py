# mypy: untyped-calls-exclude=accelerate

"""A stacked step against the steps of its trainings, each by itself: the same in float64 but for rounding."""

from __future__ import annotations

import copy
import statistics
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ecd_deploy.baselines.distillation import TrainedTeacher
from ecd_deploy.data import Batch
from ecd_deploy.distill import TrainingModel, build_objective
from ecd_deploy.models import build_student
from ecd_deploy.recipe.method import MethodConfig
from ecd_deploy.recipe.train import TrainConfig
from ecd_deploy.training.acceleration import build_accelerator, prepared
from ecd_deploy.training.methods import build_training_model
from ecd_deploy.training.steps.average import WeightAverage
from ecd_deploy.training.steps.cuda_graph import GraphedWork
from ecd_deploy.training.steps.losses import EpochLosses
from ecd_deploy.training.steps.optimizer import build_optimizer, optimizer_state
from ecd_deploy.training.steps.stacked import Lane, StackedModel, StackedWork, lane_of, stacked_batch
from ecd_deploy.training.steps.step import StepWork
from tests.training.tape import TapeRecorder

SEEDS = 3
TOLERANCE = 1e-12
SGD = TrainConfig()
KD = {"name": "distil", "pretrained": {"run": "somewhere", "losses": ("kd", "sp")}}
CASES = {
    "the student alone": ({"name": "plain"}, SGD),
    "ECD": ({"name": "ecd", "kernels": 3}, SGD),
    "ECD*": ({"name": "ecd", "kernels": 3, "logits": "ensemble"}, SGD),
    "dense": ({"name": "ecd", "kernels": 3, "density": "dense", "connection": "conv1x1_bn"}, SGD),
    "mutual learning of features too": ({"name": "joint", "kernels": 3, "logits": "mutual", "features": "stage"}, SGD),
    "ONE": ({"name": "one"}, SGD),
    "KD": (KD, SGD),
    "AdamW": ({"name": "plain"}, TrainConfig(optimizer="adamw", learning_rate=1e-3)),
    "clipped and averaged": ({"name": "plain"}, TrainConfig(clip_norm=0.5, ema_decay=0.9)),
}

_QUICK = ("ECD*", "KD", "clipped and averaged")


def make_model(seed: int, method: MethodConfig) -> TrainingModel:
    torch.manual_seed(seed)
    trained = None
    if method.pretrained is not None:
        trained = TrainedTeacher(build_student("resnet8", num_classes=4), torch.zeros(8, dtype=torch.int64))
    student, example = build_student("resnet8", num_classes=4), torch.randn(2, 3, 12, 12)
    return build_training_model(method, student, example=example, trained=trained).double()


def make_batches(step: int) -> list[Batch]:
    draw = torch.Generator().manual_seed(step)
    return [
        Batch(
            torch.randn(4, 3, 12, 12, generator=draw, dtype=torch.float64),
            torch.randint(4, (4,), generator=draw),
            torch.arange(4),
            4,
        )
        for _ in range(SEEDS)
    ]


def differences(found: nn.Module, expected: nn.Module) -> dict[str, float]:
    """By which each tensor differs at most, relative to the largest value of the expected one."""
    others = expected.state_dict()
    return {
        name: float((tensor - others[name]).abs().max() / (1 + others[name].abs().max()))
        for name, tensor in found.state_dict().items()
    }


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in _QUICK else [pytest.mark.slow]) for case in CASES]
)
def test_a_stacked_step_is_each_ones_own(case: str) -> None:
    named, config = CASES[case]
    method = MethodConfig.model_validate(named)
    models = [make_model(seed, method) for seed in range(SEEDS)]
    alone = [copy.deepcopy(model) for model in models]
    accelerator = build_accelerator(config)

    def lane(model: TrainingModel) -> Lane:
        losses = EpochLosses(accelerator)
        losses.begin_epoch(1)
        average = None if config.ema_decay is None else WeightAverage(model, config.ema_decay)
        return Lane(model, build_objective(method), losses, average)

    stacked = StackedModel(models)
    optimizer = build_optimizer(stacked.joint, config)
    with prepared(accelerator, stacked, optimizer) as (wrapped, wrapped_optimizer):
        lanes = tuple(lane(model) for model in models)
        work = StackedWork(
            model=wrapped,
            optimizer=wrapped_optimizer,
            accelerator=accelerator,
            lanes=lanes,
            clip_norm=config.clip_norm,
        )
        for step in range(4):
            batches = make_batches(step)
            for each, batch in zip(lanes, batches, strict=True):
                begin(each, step, batch)
            work(stacked_batch(batches))
    kept = optimizer_state(stacked.joint, optimizer)
    for number, (model, lane_) in enumerate(zip(alone, lanes, strict=True)):
        own, own_state = train_alone(model, lane(model), config, number)
        assert max(differences(lane_.model, model).values()) < TOLERANCE
        state = lane_of(kept, number)
        assert state.keys() == own_state.keys()
        assert all(torch.allclose(state[name], own_state[name], rtol=1e-12, atol=1e-13) for name in state)
        assert lane_.losses.means().total == pytest.approx(own.losses.means().total, rel=1e-12)
        if lane_.average is not None and own.average is not None:
            assert max(differences(lane_.average.student, own.average.student).values()) < TOLERANCE


def test_a_stack_in_bf16_rounds_as_each_one_by_itself_does() -> None:
    """And all its convolutions, which autocast does not see in a stack, are of bf16."""
    method = MethodConfig.model_validate({"name": "ecd", "kernels": 3})
    exact = [make_model(seed, method).float() for seed in range(2)]
    alone, joined = copy.deepcopy(exact), copy.deepcopy(exact)
    stacked, images = StackedModel(joined), torch.randn(2, 4, 3, 12, 12)
    with Convolutions() as convolutions, torch.autocast("cpu", torch.bfloat16):
        in_stack = stacked(images)
        by_itself = [model(own) for model, own in zip(alone, images, strict=True)]
    assert convolutions.dtypes == {torch.bfloat16}
    in_full = [model(own) for model, own in zip(exact, images, strict=True)]
    for outputs in (in_stack, by_itself, in_full):
        losses = [F.cross_entropy(own.heads()["teacher"].float(), torch.arange(4)) for own in outputs]
        torch.autograd.backward(losses)
    for number in range(2):
        wanted = [tensor.grad for tensor in exact[number].parameters() if tensor.grad is not None]
        usual = [tensor.grad for tensor in alone[number].parameters() if tensor.grad is not None]
        found = [tensor.grad[number] for tensor in stacked.joint.parameters() if tensor.grad is not None]
        assert median_error(found, wanted) < 1.5 * median_error(usual, wanted)


def median_error(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    pairs = zip(found, expected, strict=True)
    return statistics.median(float((one - other).norm() / (other.norm() + 1e-6)) for one, other in pairs)


class Convolutions(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes in which dtypes convolutions are computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "convolution" in str(func):
            self.dtypes |= {one.dtype for one in args[:2]}
        return func(*args, **(kwargs or {}))


def begin(lane: Lane, step: int, batch: Batch) -> None:
    lane.losses.begin_step(step + 1, len(batch))
    if lane.average is not None:
        lane.average.begin_step(step)


def train_alone(
    model: TrainingModel, lane: Lane, config: TrainConfig, number: int
) -> tuple[Lane, dict[str, torch.Tensor]]:
    accelerator = build_accelerator(config)
    optimizer = build_optimizer(model, config)
    with prepared(accelerator, model.train(), optimizer) as (wrapped, wrapped_optimizer):
        work = StepWork(
            model=wrapped,
            optimizer=wrapped_optimizer,
            accelerator=accelerator,
            objective=lane.objective,
            losses=lane.losses,
            clip_norm=config.clip_norm,
            average=lane.average,
        )
        for step in range(4):
            batch = make_batches(step)[number]
            begin(lane, step, batch)
            work(batch)
    return lane, optimizer_state(model, optimizer)


def test_the_models_are_views_of_the_stack() -> None:
    method = MethodConfig(name="plain")
    models = [make_model(seed, method) for seed in range(2)]
    before = [copy.deepcopy(model.state_dict()) for model in models]
    stacked = StackedModel(models)
    assert all(
        torch.equal(tensor, own[name])
        for model, own in zip(models, before, strict=True)
        for name, tensor in model.state_dict().items()
    )
    with torch.no_grad():
        for tensor in (*stacked.parameters(), *stacked.buffers()):
            tensor.add_(1)
    for model, own in zip(models, before, strict=True):
        assert all(torch.equal(tensor, own[name] + 1) for name, tensor in model.state_dict().items())


def test_a_stack_has_about_the_operations_of_one() -> None:
    """What is left for each training are its losses and their sums."""
    method = MethodConfig.model_validate({"name": "ecd", "kernels": 3})

    class Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.operations = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.operations += "view" not in str(func)
            return func(*args, **(kwargs or {}))

    counts = []
    for runs in (1, 3):
        models = [make_model(seed, method) for seed in range(runs)]
        work = make_work(models, method)
        batch = stacked_batch(make_batches(0)[:runs])
        with Count() as count:
            work(batch)
        counts.append(count.operations)
    assert counts[1] < 1.25 * counts[0]


def test_a_recorded_stack_has_the_bits_of_an_eager_one() -> None:
    method = MethodConfig.model_validate({"name": "ecd", "kernels": 3})
    found = []
    for is_recorded in (False, True):
        models = [make_model(seed, method) for seed in range(2)]
        work = make_work(models, method)
        do = GraphedWork(work, TapeRecorder()) if is_recorded else work
        for step in range(3):
            do(stacked_batch(make_batches(step)[:2]))
        assert not (isinstance(do, GraphedWork) and do.is_eager)
        found.append([tensor for model in models for tensor in model.state_dict().values()])
    assert all(torch.equal(eager, recorded) for eager, recorded in zip(*found, strict=True))


def make_work(models: list[TrainingModel], method: MethodConfig) -> StackedWork:
    accelerator = build_accelerator(SGD)
    stacked = StackedModel(models)
    optimizer = build_optimizer(stacked.joint, SGD)
    for group in optimizer.param_groups:
        group["lr"] = torch.as_tensor(group["lr"])
    wrapped, wrapped_optimizer = accelerator.prepare(stacked, optimizer)
    lanes = tuple(Lane(model, build_objective(method), EpochLosses(accelerator)) for model in models)
    for lane in lanes:
        lane.losses.begin_epoch(1)
        lane.losses.begin_step(1, 4)
    return StackedWork(model=wrapped, optimizer=wrapped_optimizer, accelerator=accelerator, lanes=lanes)
