# mypy: untyped-calls-exclude=accelerate

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ecd_deploy.data import Batch, DataSplits
from ecd_deploy.distill import PlainModel, TrainingModel, TrainingOutputs, build_objective
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.recipe.train import TrainConfig
from ecd_deploy.training import loop
from ecd_deploy.training.acceleration import build_accelerator
from ecd_deploy.training.checkpoints.state import Checkpoint
from ecd_deploy.training.checkpoints.store import CheckpointStore
from ecd_deploy.training.steps.cuda_graph import GraphedWork, find_obstacle
from ecd_deploy.training.steps.losses import EpochLosses
from ecd_deploy.training.steps.optimizer import build_optimizer
from ecd_deploy.training.steps.step import StepWork
from tests.small import present
from tests.training.helpers import MakeModel, MakeRecipe, metrics, run, same_state
from tests.training.tape import TapeRecorder


@pytest.fixture
def rate_on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives CPUs, too, the rate as a tensor."""

    def build(model: nn.Module, config: TrainConfig, device: torch.device | None = None) -> torch.optim.Optimizer:
        optimizer = build_optimizer(model, config, device)
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(group["lr"])
        return optimizer

    monkeypatch.setattr(loop, "build_optimizer", build)


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[TapeRecorder]:
    """Lets trainings record their steps on the CPU; each adds its recorder."""
    made: list[TapeRecorder] = []

    def graphed(work: StepWork, recipe: Recipe) -> Callable[[Batch], None]:
        if recipe.train.cuda_graph == "never":
            return work
        made.append(TapeRecorder())
        return GraphedWork(work, made[-1])

    monkeypatch.setattr(loop, "graphed", graphed)
    return made


OPTIONS = ("train.warmup_epochs=1.5", "train.nesterov=true")
ADAMW = (
    *("train.warmup_epochs=1.5", "train.optimizer=adamw", "train.learning_rate=0.01"),
    *("train.clip_norm=0.5", "train.ema_decay=0.9"),
)
MIXED = ("augment.policy=trivialaugment", "augment.random_erasing=0.5", "augment.mixup=0.4", "augment.cutmix=1.0")


WEIGHED = (*OPTIONS, *MIXED, 'train.class_weights={"3" = 4.0}', "train.logit_adjustment=1.0")


@pytest.mark.usefixtures("rate_on_device")
@pytest.mark.parametrize("options", [OPTIONS, ADAMW, WEIGHED], ids=["sgd", "adamw", "weighed and mixed"])
def test_a_recorded_training_has_the_bits_of_an_eager_one(
    options: tuple[str, ...],
    make_model: MakeModel,
    make_recipe: MakeRecipe,
    data: DataSplits,
    tmp_path: Path,
    recorders: list[TapeRecorder],
) -> None:
    """With dropout, batch norm, a rate that rises, a smaller last batch, sums of losses, and all that is kept."""
    recorded, eager = make_model(), make_model()
    run(recorded, data, make_recipe(*options), tmp_path / "recorded")
    run(eager, data, make_recipe(*options, "train.cuda_graph=never"), tmp_path / "eager")
    first, second = (
        present(CheckpointStore(tmp_path / name / "checkpoints").newest()) for name in ("recorded", "eager")
    )
    for mine, other in ((first.optimizer, second.optimizer), (first.average, second.average)):
        assert mine.keys() == other.keys()
        assert all(torch.equal(tensor, other[name]) for name, tensor in mine.items())
    assert [recorder.recordings for recorder in recorders] == [2]
    assert same_state(recorded, eager)
    assert metrics(tmp_path / "recorded") == metrics(tmp_path / "eager")


@pytest.mark.usefixtures("recorders")
def test_a_number_that_a_recording_freezes_shows(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path
) -> None:
    """The planted fault: a rate that is no tensor."""
    recorded, eager = make_model(), make_model()
    run(recorded, data, make_recipe(*OPTIONS), tmp_path / "recorded")
    run(eager, data, make_recipe(*OPTIONS, "train.cuda_graph=never"), tmp_path / "eager")
    assert not same_state(recorded, eager)


@pytest.mark.usefixtures("rate_on_device", "recorders")
@pytest.mark.parametrize(("step", "options"), [(3, OPTIONS), (8, OPTIONS), (8, ADAMW), (10, OPTIONS)])
def test_a_recorded_training_is_gone_on_from_alike(
    make_model: MakeModel,
    make_recipe: MakeRecipe,
    data: DataSplits,
    tmp_path: Path,
    step: int,
    options: tuple[str, ...],
) -> None:
    recipe = make_recipe(*options, "train.checkpoint_steps=1")
    whole, stopped, resumed = make_model(), make_model(), make_model()
    run(whole, data, recipe, tmp_path / "whole")
    run_until(stopped, data, recipe, tmp_path / "stopped", step)
    run(resumed, data, recipe, tmp_path / "stopped", resume=True)
    assert same_state(whole, resumed)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")


def run_until(model: TrainingModel, data: DataSplits, recipe: Recipe, directory: Path, step: int) -> None:
    """Train until a checkpoint of this step is written, and stop there by a signal."""
    save = CheckpointStore.save

    def save_and_stop(store: CheckpointStore, checkpoint: Checkpoint) -> Path:
        path = save(store, checkpoint)
        if checkpoint.state.step == step:
            raise KeyboardInterrupt
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CheckpointStore, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            run(model, data, recipe, directory)


class Changing(PlainModel):
    """A student whose step is not the same each time, in a way that is to be told."""

    def __init__(self, change: Callable[[Changing, Tensor], Tensor]) -> None:
        super().__init__(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)))
        self.change = change
        self.calls = 0
        self.history: list[int] = []
        self.last = torch.zeros(())

    def forward(self, images: Tensor) -> TrainingOutputs:
        logits = super().forward(images).student
        return TrainingOutputs(self.change(self, logits) if self.training else logits)


def count(model: Changing, logits: Tensor) -> Tensor:
    model.calls += 1
    return logits


def remember(model: Changing, logits: Tensor) -> Tensor:
    model.last = logits.detach().mean()
    return logits


def collect(model: Changing, logits: Tensor) -> Tensor:
    model.history.append(len(logits))
    return logits


def draw(model: Changing, logits: Tensor) -> Tensor:
    del model
    return logits * (1 + 0.1 * random.random())


def draw_numpy(model: Changing, logits: Tensor) -> Tensor:
    del model
    return logits if np.random.rand() < 0.5 else -logits  # noqa: NPY002


TICKS = itertools.count()


def schedule(model: Changing, logits: Tensor) -> Tensor:
    del model
    return logits * (1 + next(TICKS))


@pytest.mark.usefixtures("recorders")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (count, "the model's attribute 'calls' changes from step to step"),
        (remember, "the model's attribute 'last' changes"),
        (collect, "the model's attribute 'history' changes"),
        (draw, "the model draws from Python's random generator of the host"),
        (draw_numpy, "the model draws from NumPy's random generator of the host"),
        (schedule, "its operations differ from step to step, the first at aten.mul.Tensor"),
    ],
)
def test_a_step_that_is_not_the_same_each_time_is_done_as_it_is(
    change: Callable[[Changing, Tensor], Tensor],
    reason: str,
    make_recipe: MakeRecipe,
    data: DataSplits,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    models = []
    for name in ("auto", "never"):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        models.append(Changing(change))
        run(models[-1], data, make_recipe("train.epochs=2", f"train.cuda_graph={name}"), tmp_path / name)
    (record,) = caplog.records
    assert "the training step is not recorded as a CUDA graph, and so is slower: " in record.getMessage()
    assert reason in record.getMessage()
    # what was tried out before has left no trace, as far as it can be put back
    assert change is schedule or same_state(*models)
    assert models[0].calls == models[1].calls


@pytest.mark.usefixtures("rate_on_device")
def test_a_recording_that_fails_leaves_an_eager_training(
    make_model: MakeModel,
    make_recipe: MakeRecipe,
    data: DataSplits,
    tmp_path: Path,
    recorders: list[TapeRecorder],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the second size of batch, when the first is recorded and in use."""
    record = TapeRecorder.record

    def fail_at_the_second(recorder: TapeRecorder, work: Callable[[], None]) -> Callable[[], None]:
        launch = record(recorder, work)
        if recorder.recordings == 2:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        return launch

    monkeypatch.setattr(TapeRecorder, "record", fail_at_the_second)
    failed, eager = make_model(), make_model()
    run(failed, data, make_recipe(), tmp_path / "failed")
    run(eager, data, make_recipe("train.cuda_graph=never"), tmp_path / "eager")
    assert recorders[0].recordings == 2
    (line,) = caplog.messages
    assert line.endswith("recording it failed: operation not permitted when stream is capturing")
    assert same_state(failed, eager)


def hooked(model: TrainingModel) -> None:
    next(model.student.children()).register_forward_hook(lambda *_: None)


def tensor_hooked(model: TrainingModel) -> None:
    next(model.parameters()).register_hook(lambda gradient: gradient)  # type: ignore[no-untyped-call]


def with_generator(model: TrainingModel) -> None:
    vars(model.student)["generator"] = torch.Generator()


@pytest.mark.parametrize(
    ("change", "overrides", "reason"),
    [
        (hooked, (), "'student.0' has hooks"),
        (tensor_hooked, (), "'student.0.weight' has hooks"),
        (with_generator, (), "'student' has a random generator of its own"),
        (None, ("train.gradient_accumulation=3",), "train.gradient_accumulation is 3"),
        (None, ("method.name=distil", "method.pretrained={run='x', losses=['kd', 'rkd']}"), "the loss 'rkd' of"),
        (None, ("method.name=distil", "method.pretrained={run='x', losses=['crd']}"), "the loss 'crd' of"),
        (None, (), None),
    ],
)
def test_what_is_known_to_be_no_graph_is_named_before_the_first_step(
    change: Callable[[TrainingModel], None] | None,
    overrides: tuple[str, ...],
    reason: str | None,
    make_model: MakeModel,
    make_recipe: MakeRecipe,
) -> None:
    recipe = make_recipe(*overrides)
    model = make_model()
    if change is not None:
        change(model)
    accelerator = build_accelerator(recipe.train)
    work = StepWork(
        model=model,
        optimizer=accelerator.prepare(build_optimizer(model, recipe.train)),
        accelerator=accelerator,
        objective=build_objective(recipe.method),
        losses=EpochLosses(accelerator),
        parts=recipe.train.gradient_accumulation,
    )
    found = find_obstacle(work, recipe)
    assert found == reason or (reason is not None and reason in (found or ""))


def test_a_cpu_and_a_recipe_that_does_not_want_it_record_nothing_and_say_nothing(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("auto", "never"):
        run(make_model(), data, make_recipe("train.epochs=1", f"train.cuda_graph={name}"), tmp_path / name)
    assert not caplog.records
