from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ecd_deploy.data import DataSplits, load_data
from ecd_deploy.errors import CheckpointError, Interrupted, RunDirectoryError, Terminated, TrainingError
from ecd_deploy.training import load_weights, train, trainer
from ecd_deploy.training.checkpoints.store import CheckpointStore
from tests.small import present
from tests.training.helpers import MakeModel, MakeRecipe, at_forward, interrupt, metrics, run, same_state

STEPS = 15  # of three epochs
EVERY_STEP = range(1, STEPS + 1)


def newest_tensors(directory: Path) -> dict[str, bytes]:
    """The files of weights, optimiser and average of the newest checkpoint."""
    newest = CheckpointStore(directory / "checkpoints").paths()[-1]
    return {path.name: path.read_bytes() for path in newest.glob("*.safetensors")}


def checkpoints(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "checkpoints").iterdir())


ADAMW = (
    *("train.optimizer=adamw", "train.learning_rate=0.01", "train.clip_norm=0.5", "train.ema_decay=0.9"),
    "train.patience=2",
)
AUGMENTED = (
    *("augment.policy=randaugment", "augment.rotation=10", "augment.brightness=0.2", "augment.contrast=0.2"),
    *("augment.random_erasing=0.5", "augment.mixup=0.4", "augment.cutmix=1.0", "train.label_smoothing=0.1"),
    *("train.sampling=balanced", "train.select=balanced_accuracy", 'train.class_weights={"3" = 4.0}'),
    "augment.transforms=['tests.data.augmentation.own_transforms:noisy']",
)


@pytest.mark.parametrize(
    ("every", "options", "broken_at"),
    [
        (0, (), EVERY_STEP),
        (2, (), EVERY_STEP),
        (2, ADAMW, EVERY_STEP),
        (2, AUGMENTED, (9,)),
    ],
)
def test_resuming_gives_the_bits_of_an_uninterrupted_training(
    make_model: MakeModel,
    make_recipe: MakeRecipe,
    data: DataSplits,
    tmp_path: Path,
    every: int,
    options: tuple[str, ...],
    broken_at: Iterable[int],
) -> None:
    recipe = make_recipe(f"train.checkpoint_steps={every}", *options)
    whole = make_model()
    expected = run(whole, data, recipe, tmp_path / "whole")
    for forward in broken_at:
        directory = tmp_path / f"broken-{forward}"
        broken = make_model()
        at_forward(broken, forward, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(broken, data, recipe, directory)
        torch.manual_seed(99)  # what the process drew before must not matter
        resumed = make_model()
        forwards: list[int] = []
        resumed.register_forward_pre_hook(lambda module, _, done=forwards: done.append(1) if module.training else None)
        result = run(resumed, data, recipe, directory, resume=True)

        assert same_state(whole, resumed)
        assert newest_tensors(directory) == newest_tensors(tmp_path / "whole")
        assert metrics(directory) == metrics(tmp_path / "whole")
        assert result.model_dump(exclude={"seconds"}) == expected.model_dump(exclude={"seconds"})
        saved = max(step for step in range(forward) if step % 5 == 0 or (every and step % every == 0))
        assert len(forwards) == STEPS - saved


def test_the_clock_saves_too(make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path) -> None:
    model = make_model()
    at_forward(model, 4, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(model, data, make_recipe("train.checkpoint_minutes=1e-9"), tmp_path)
    assert checkpoints(tmp_path) == ["step-000000002-running", "step-000000003-running"]


@pytest.mark.parametrize(
    ("number", "kind", "code"), [(signal.SIGINT, Interrupted, 130), (signal.SIGTERM, Terminated, 143)]
)
@pytest.mark.parametrize("forward", [1, 5, 8, STEPS])
def test_a_signal_lets_the_step_end_and_saves_it(
    make_model: MakeModel,
    make_recipe: MakeRecipe,
    data: DataSplits,
    tmp_path: Path,
    number: signal.Signals,
    kind: type[Interrupted],
    code: int,
    forward: int,
) -> None:
    whole = make_model()
    run(whole, data, make_recipe(), tmp_path / "whole")
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    stopped = make_model()
    at_forward(stopped, forward, lambda _: os.kill(os.getpid(), number))
    with pytest.raises(kind, match=f"{number.name} after step {forward} of 15; everything is saved") as caught:
        run(stopped, data, make_recipe(), tmp_path / "stopped")
    assert caught.value.exit_code == code
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert checkpoints(tmp_path / "stopped")[-1] == f"step-{forward:09d}-running"
    with pytest.raises(CheckpointError, match="within an epoch"):
        load_weights(tmp_path / "stopped", "last", make_model())

    resumed = make_model()
    run(resumed, data, make_recipe(), tmp_path / "stopped", resume=True)
    assert same_state(whole, resumed)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")


def test_a_second_signal_does_not_wait_for_the_step(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path
) -> None:
    def insist(_: tuple[Tensor, ...]) -> None:
        signal.raise_signal(signal.SIGINT)  # os.kill may reach another thread, where two signals become one
        signal.raise_signal(signal.SIGINT)

    model = make_model()
    at_forward(model, 3, insist)
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            run(model, data, make_recipe(), tmp_path)
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert not (tmp_path / "checkpoints").exists()


def test_a_loss_that_is_not_finite_keeps_the_checkpoint_within_the_epoch(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path
) -> None:
    model = make_model()
    at_forward(model, 9, lambda inputs: inputs[0].fill_(float("nan")))
    with pytest.raises(TrainingError, match=r"not finite at step 9 \(epoch 2\)"):
        run(model, data, make_recipe("train.checkpoint_steps=1"), tmp_path)
    assert checkpoints(tmp_path) == ["step-000000005", "step-000000007-running", "step-000000008-running"]


def test_what_differs_is_refused_by_name_and_accepted_on_demand(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(make_model(), data, make_recipe("train.epochs=1"), tmp_path)
    with pytest.raises(RunDirectoryError, match="--accept-changes") as caught:  # a fixture puts the threads back
        run(make_model(), data, make_recipe("train.epochs=2", "train.threads=2"), tmp_path, resume=True)
    assert "recipe digest: " in str(caught.value)
    assert "threads: 1 in the checkpoint, 2 now" in str(caught.value)
    recipe = make_recipe("train.epochs=2")
    result = train(make_model(), data, recipe, tmp_path, resume=True, accept_changes=True)
    assert result.epochs == 2
    assert "recipe digest" in caplog.text


def test_other_images_need_consent_and_other_steps_cannot_have_it(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path
) -> None:
    run(make_model(), data, make_recipe("train.epochs=1"), tmp_path)
    others = load_data(make_recipe("data.train_limit=299").data, seed=0)
    with pytest.raises(RunDirectoryError, match="data digest: "):
        run(make_model(), others, make_recipe("train.epochs=1"), tmp_path, resume=True)
    recipe = make_recipe("train.batch_size=32")
    with pytest.raises(RunDirectoryError, match=r"steps per epoch: 5 in the checkpoint, 9 now"):
        train(make_model(), data, recipe, tmp_path, resume=True, accept_changes=True)


@pytest.fixture
def saving_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """An end of an epoch is saved an hour after the last save, as on an accelerator after half a minute."""
    monkeypatch.setattr(trainer, "_seconds_between_saves", lambda _device: 3600.0)


@pytest.mark.usefixtures("saving_by_the_clock")
def test_between_saves_by_the_clock_the_last_epoch_and_the_best_are_saved_nevertheless(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("train.epochs=6", "train.learning_rate=0.8", "train.schedule=multistep", "train.milestones=[9]")
    by_clock, each = make_model(), make_model()
    result = run(by_clock, data, make_recipe(*options), tmp_path / "clock")
    monkeypatch.undo()
    torch.set_num_threads(1)
    assert run(each, data, make_recipe(*options), tmp_path / "each").best == result.best
    best = present(result.best)
    assert best.epoch < 6
    assert checkpoints(tmp_path / "clock") == [f"step-{best.step:09d}", "step-000000030"]
    for which in ("best", "last"):
        loaded, expected = make_model(), make_model()
        load_weights(tmp_path / "clock", which, loaded)
        load_weights(tmp_path / "each", which, expected)
        assert same_state(loaded, expected)


@pytest.mark.usefixtures("saving_by_the_clock")
@pytest.mark.parametrize("forward", [3, 8, 13, STEPS])
def test_a_kill_between_saves_by_the_clock_costs_steps_but_no_bit(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path, forward: int
) -> None:
    whole, broken, resumed = make_model(), make_model(), make_model()
    expected = run(whole, data, make_recipe("train.checkpoint_steps=7"), tmp_path / "whole")
    at_forward(broken, forward, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(broken, data, make_recipe("train.checkpoint_steps=7"), tmp_path / "broken")
    result = run(resumed, data, make_recipe("train.checkpoint_steps=7"), tmp_path / "broken", resume=True)
    assert same_state(whole, resumed)
    assert metrics(tmp_path / "broken") == metrics(tmp_path / "whole")
    assert result.model_dump(exclude={"seconds"}) == expected.model_dump(exclude={"seconds"})
    load_weights(tmp_path / "broken", "best", make_model())


@pytest.mark.usefixtures("saving_by_the_clock")
@pytest.mark.parametrize("forward", [5, 10])
def test_a_signal_between_saves_by_the_clock_saves(
    make_model: MakeModel, make_recipe: MakeRecipe, data: DataSplits, tmp_path: Path, forward: int
) -> None:
    """Also one that comes while the end of the epoch is evaluated."""
    stopped = make_model()
    evaluations = 0

    def stop(module: torch.nn.Module, _: object) -> None:
        nonlocal evaluations
        evaluations += not module.training
        if evaluations == forward // 5:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped.register_forward_pre_hook(stop)
    with pytest.raises(Terminated, match=f"after step {forward} of 15; everything is saved"):
        run(stopped, data, make_recipe(), tmp_path)
    assert checkpoints(tmp_path)[-1] == f"step-{forward:09d}"
