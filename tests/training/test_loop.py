from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ecd_deploy.data import DataSplits, ImageTensors, TrainBatches, normalise
from ecd_deploy.data.plan import StepPlan
from ecd_deploy.distill import PlainModel
from ecd_deploy.errors import ArtefactError, CheckpointError, RecipeError, RunDirectoryError, TrainingError
from ecd_deploy.training import TrainingResult, load_weights, train
from ecd_deploy.training.progress import BatchEnded, EpochEnded, TrainingEvent, TrainingStarted
from tests.small import present
from tests.training.helpers import MakeModel, MakeRecipe, at_forward, interrupt, metrics, run, same_state


def test_equals_a_loop_written_by_hand(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path
) -> None:
    recipe = make_recipe("train.schedule=multistep", "train.milestones=[1]", "train.warmup_epochs=0.0")
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"label_smoothing": 0.1})})
    ours, byhand = make_model(), make_model()
    for model in (ours, byhand):  # the hand-written loop has no per-step seeds
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    run(ours, data, recipe, tmp_path)

    optimizer = torch.optim.SGD(byhand.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1], gamma=0.1)
    plan = StepPlan(images=len(data.train), batch_size=64, seed=0)
    batches = TrainBatches(data.train, data.normalisation, plan, crop_padding=1, horizontal_flip=True)
    for epoch in (1, 2, 3):
        for batch in batches.epoch(epoch):
            optimizer.zero_grad()
            losses = [
                functional.cross_entropy(logits, batch.labels, label_smoothing=0.1)
                for logits in byhand(batch.images).heads().values()
            ]
            torch.autograd.backward(losses)
            optimizer.step()
        scheduler.step()
    for (name, found), expected in zip(ours.named_parameters(), byhand.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6, msg=name)


def test_leaves_metrics_checkpoints_and_a_result(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path
) -> None:
    model = make_model()
    events: list[TrainingEvent] = []
    recipe = make_recipe("train.trackers=['tensorboard']")
    result = train(model, data, recipe, tmp_path, resume=False, on_event=events.append)
    lines = metrics(tmp_path)
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert [line["step"] for line in lines] == [5, 10, 15]
    assert lines[2]["loss"] == pytest.approx(lines[2]["student_loss"] + lines[2]["teacher_loss"], rel=1e-5)
    assert lines[2]["loss"] < lines[0]["loss"]
    assert (result.epochs, result.steps, result.processes) == (3, 15, 1)
    assert result.last.validation_top1 == lines[2]["validation_top1"]
    assert result.last.teacher_validation_top1 == lines[2]["teacher_validation_top1"]
    assert present(present(result.best).validation_top1) == max(line["validation_top1"] for line in lines)
    assert list((tmp_path / "tensorboard").iterdir())
    assert events[0] == TrainingStarted(epochs=3, batches_per_epoch=5, batches_done=0)
    assert [event.step for event in events if isinstance(event, BatchEnded)] == list(range(1, 16))
    assert [event.record.epoch for event in events if isinstance(event, EpochEnded)] == [1, 2, 3]
    assert len(events) == 1 + 15 + 3
    assert TrainingResult.model_validate_json(result.model_dump_json()) == result


def test_batch_norm_goes_on_learning_after_the_first_evaluation(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path
) -> None:
    after_one, after_two = make_model(), make_model()
    run(after_one, data, make_recipe("train.epochs=1"), tmp_path / "one")
    run(after_two, data, make_recipe("train.epochs=2"), tmp_path / "two")
    first, second = (
        next(module for module in model.student.modules() if isinstance(module, nn.BatchNorm2d))
        for model in (after_one, after_two)
    )
    assert (int(first.num_batches_tracked or 0), int(second.num_batches_tracked or 0)) == (5, 10)
    assert first.running_mean is not None
    assert second.running_mean is not None
    assert not torch.equal(first.running_mean, second.running_mean)


def test_a_corrupt_newest_checkpoint_costs_an_epoch_but_no_bit(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = make_model()
    run(whole, data, make_recipe(), tmp_path)
    expected = metrics(tmp_path)
    (tmp_path / "checkpoints" / "step-000000015" / "weights.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_weights(tmp_path, "last", make_model())
    resumed = make_model()
    run(resumed, data, make_recipe(), tmp_path, resume=True)
    assert "step-000000015.corrupt" in caplog.text
    assert same_state(whole, resumed)
    assert metrics(tmp_path) == expected


def test_resuming_a_finished_training_only_loads_it(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path
) -> None:
    whole, again = make_model(), make_model()
    expected = run(whole, data, make_recipe(), tmp_path)
    at_forward(again, 1, interrupt)
    assert run(again, data, make_recipe(), tmp_path, resume=True) == expected
    assert same_state(whole, again)


def test_weights_of_the_last_and_the_best_epoch_are_loaded(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path
) -> None:
    model, last, best = make_model(), make_model(), make_model()
    result = run(model, data, make_recipe("train.epochs=4", "train.learning_rate=0.8"), tmp_path)
    load_weights(tmp_path, "last", last)
    assert same_state(model, last)
    load_weights(tmp_path, "best", best)
    best.eval()
    validation = ImageTensors.of(present(data.validation))
    with torch.no_grad():
        predicted = best(normalise(validation.images, data.normalisation))[0].argmax(1)
    found = (predicted == validation.labels).double().mean().item()
    assert found == pytest.approx(present(present(result.best).validation_top1))


def test_weights_of_another_model_or_none_are_refused(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="train first"):
        load_weights(tmp_path, "last", make_model())
    run(make_model(), data, make_recipe("train.epochs=1"), tmp_path)
    with pytest.raises(CheckpointError, match=r"of another model: at teacher\.0\.bias it has \(4,\), this one has no"):
        load_weights(tmp_path, "last", PlainModel(make_model().student))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_its_step_and_keeps_the_checkpoint(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path, bad: float
) -> None:
    def spoil(inputs: tuple[Tensor, ...]) -> None:
        inputs[0].fill_(bad)

    model = make_model()
    at_forward(model, 8, spoil)
    with pytest.raises(TrainingError, match=r"not finite at step 8 \(epoch 2\)"):
        run(model, data, make_recipe(), tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000000005"]
    load_weights(tmp_path, "last", make_model())


def test_weights_that_are_not_finite_are_never_saved(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path
) -> None:
    model = make_model()
    bias = next(module for module in model.student.modules() if isinstance(module, nn.Linear)).bias
    calls = 0

    def spoil(gradient: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return gradient * float("inf") if calls == 10 else gradient

    bias.register_hook(spoil)  # type: ignore[no-untyped-call]  # the last step of epoch 2: its loss was still finite
    with pytest.raises(TrainingError, match=r"student\.5\.bias is not finite after step 10 \(epoch 2\)"):
        run(model, data, make_recipe(), tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000000005"]


def test_gradients_of_parts_add_up_to_those_of_the_batch(
    make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path
) -> None:
    def train_plain(directory: Path, *overrides: str) -> PlainModel:
        torch.manual_seed(0)
        model = PlainModel(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)))
        run(model, data, make_recipe(*overrides), directory)
        return model

    whole = train_plain(tmp_path / "whole")
    parts = train_plain(tmp_path / "parts", "train.gradient_accumulation=5")
    for found, expected in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for found_line, line in zip(metrics(tmp_path / "parts"), metrics(tmp_path / "whole"), strict=True):
        assert found_line["loss"] == pytest.approx(line["loss"], rel=1e-4)


def test_mixed_precision_trains_and_leaves_the_model_as_it_was(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path
) -> None:
    model = make_model()
    kinds: set[torch.dtype] = set()

    def note_kind(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad:  # what is tried out before the training is not part of it
            kinds.add(output.dtype)

    next(model.student.children()).register_forward_hook(note_kind)
    result = run(model, data, make_recipe("train.mixed_precision=bf16"), tmp_path / "bf16")
    assert kinds == {torch.bfloat16}
    assert present(result.last.validation_top1) > 0.2
    assert "forward" not in vars(model)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    run(make_model(), data, make_recipe("train.epochs=1"), tmp_path / "fp32")


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 trains on a GPU")
def test_a_precision_that_the_device_lacks_is_refused(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"train\.mixed_precision: 'fp16' needs a GPU"):
        run(make_model(), data, make_recipe("train.mixed_precision=fp16"), tmp_path)


def test_an_earlier_training_is_not_overwritten(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path
) -> None:
    run(make_model(), data, make_recipe("train.epochs=1"), tmp_path)
    with pytest.raises(RunDirectoryError, match="resume it or choose another directory"):
        run(make_model(), data, make_recipe("train.epochs=1"), tmp_path)


def test_a_directory_that_cannot_be_written_ends_before_the_first_step(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path
) -> None:
    (tmp_path / "run").write_text("in the way")
    model = make_model()
    at_forward(model, 1, interrupt)
    with pytest.raises(ArtefactError, match="cannot write"):
        run(model, data, make_recipe(), tmp_path / "run")


def test_the_thread_count_is_set_and_recorded(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path
) -> None:
    before = torch.get_num_threads()
    try:
        result = run(make_model(), data, make_recipe("train.epochs=1", "train.threads=1"), tmp_path)
        assert torch.get_num_threads() == result.threads == 1
        state = json.loads((tmp_path / "checkpoints" / "step-000000005" / "state.json").read_text())
        assert state["training"]["threads"] == 1
    finally:
        torch.set_num_threads(before)
