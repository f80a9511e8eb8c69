from __future__ import annotations

import logging
import os
import resource
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ecd_deploy.errors import CheckpointError
from ecd_deploy.training.checkpoints.state import (
    Checkpoint,
    CheckpointState,
    LossSums,
    RunningEpoch,
    ScalerState,
    TrainingIdentity,
)
from ecd_deploy.training.checkpoints.store import CheckpointStore
from ecd_deploy.training.scores import EpochRecord, best_score
from tests.small import present

FILES = ("weights.safetensors", "momentum.safetensors", "state.json", "MANIFEST.json")


IDENTITY = TrainingIdentity(
    recipe_digest="r", data_digest="d", steps_per_epoch=10, threads=2, processes=1, device="cpu", torch="2"
)


def record(epoch: int, top1: float = 0.5) -> EpochRecord:
    return EpochRecord(
        epoch=epoch, step=10 * epoch, validation_top1=top1, loss=1 / 3, student_loss=0.1, learning_rate=0.1, seconds=1.0
    )


def checkpoint(*top1s: float, weights: int = 5) -> Checkpoint:
    history = tuple(record(number, top1) for number, top1 in enumerate(top1s, start=1))
    state = CheckpointState(
        training=IDENTITY,
        step=10 * len(history),
        best=best_score(history, "best"),
        history=history,
        scaler=ScalerState(scale=1024.0, growth_tracker=3),
    )
    values = torch.arange(weights, dtype=torch.float32) + len(history)
    return Checkpoint(state, {"weight": values, "tied": values, "steps": torch.tensor(7)}, {"weight": -values})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    written = checkpoint(0.5, 0.25)
    found = store.read(store.save(written))
    assert found.state == written.state
    for expected, tensors in ((written.weights, found.weights), (written.optimizer, found.optimizer)):
        assert expected.keys() == tensors.keys()
        assert all(torch.equal(expected[name], tensors[name]) for name in expected)
    assert names(store.path_of(20)) == sorted(FILES)


def test_the_average_is_there_where_there_is_one(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    written = replace(checkpoint(0.5), average={"weight": torch.rand(3)})
    path = store.save(written)
    assert torch.equal(store.read(path).average["weight"], written.average["weight"])
    assert names(path) == sorted((*FILES, "average.safetensors"))
    (path / "average.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"average.safetensors"):
        store.read(path)


@pytest.mark.parametrize("name", FILES)
def test_a_flip_of_any_byte_is_noticed(tmp_path: Path, name: str) -> None:
    store = CheckpointStore(tmp_path)
    path = store.save(checkpoint(0.5)) / name
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in (0, 5):
            flipped = bytearray(whole)
            flipped[position] ^= 1 << bit
            path.write_bytes(flipped)
            with pytest.raises(CheckpointError, match="is damaged"):
                store.newest()
    path.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match="is damaged"):
        store.newest()
    path.unlink()
    with pytest.raises(CheckpointError, match=name):
        store.newest()


def test_the_newest_two_and_the_best_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    top1s = [0.1, 0.9, 0.3, 0.4, 0.5]
    for count in range(1, 6):
        store.save(checkpoint(*top1s[:count]))
    assert names(tmp_path) == ["step-000000020", "step-000000040", "step-000000050"]


def test_of_equal_epochs_the_earliest_is_best() -> None:
    assert present(best_score((record(1, 0.2), record(2, 0.7), record(3, 0.7)), "best")).epoch == 2


def test_a_damaged_newest_is_set_aside_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = CheckpointStore(tmp_path)
    for count in (1, 2):
        store.save(checkpoint(*[0.5] * count))
    (store.path_of(20) / "momentum.safetensors").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        recovered = store.recover()
    assert recovered is not None
    assert recovered.state.step == 10
    assert "momentum.safetensors was changed" in caplog.text
    assert names(tmp_path) == ["step-000000010", "step-000000020.corrupt"]
    newest = store.newest()
    assert newest is not None
    assert newest.state.step == 10

    store.save(checkpoint(0.5, 0.5))
    (store.path_of(20) / "state.json").unlink()
    store.recover()
    assert names(tmp_path) == ["step-000000010", "step-000000020.corrupt", "step-000000020.corrupt-2"]


def test_if_all_are_damaged_nothing_is_touched(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for count in (1, 2):
        (store.save(checkpoint(*[0.5] * count)) / "weights.safetensors").unlink()
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"no checkpoint below .* is whole"):
            store.recover()
    assert names(tmp_path) == ["step-000000010", "step-000000020"]


def test_leftovers_of_an_interrupted_save_are_no_checkpoints_and_are_swept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(checkpoint(0.5))
    leftover = tmp_path / ".step-000000020.0011aabb.partial"
    leftover.mkdir()
    (leftover / "state.json").write_text("{")
    newest = store.newest()
    assert newest is not None
    assert newest.state.step == 10
    store.recover()
    assert names(tmp_path) == ["step-000000010"]


def test_an_empty_or_absent_folder_has_no_checkpoint(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        store = CheckpointStore(folder)
        assert store.recover() is None
        assert store.newest() is None


def test_a_failed_write_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(checkpoint(0.5))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"cannot write checkpoint .*step-000000020: File too large"):
            store.save(checkpoint(0.5, 0.5, weights=1_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == ["step-000000010"]
    assert store.newest() is not None


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"cannot write checkpoint .*checkpoints"):
        CheckpointStore(tmp_path / "checkpoints").save(checkpoint(0.5))


def test_the_end_of_an_epoch_is_newer_than_its_last_step(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    ended = checkpoint(0.5, 0.5)
    running = RunningEpoch(losses=(LossSums(names=("student",), sums=(1 / 3, 1e-17), images=7),), seconds=0.1)
    before = ended.state.model_copy(update={"running": running, "history": ended.state.history[:1]})
    store.save(Checkpoint(before, ended.weights, ended.optimizer))
    newest = store.newest()
    assert newest is not None
    assert newest.state.running == running
    store.save(ended)
    assert [path.name for path in store.paths()] == ["step-000000020-running", "step-000000020"]


def test_the_best_that_the_older_of_two_refers_to_is_kept_as_well(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    top1s = [0.1, 0.4, 0.3, 0.2, 0.5]
    for count in range(1, 6):
        store.save(checkpoint(*top1s[:count]))
    assert names(tmp_path) == ["step-000000020", "step-000000040", "step-000000050"]


def test_a_kill_before_any_call_to_the_file_system_leaves_a_checkpoint(tmp_path: Path) -> None:
    """A save that also prunes: each of its calls that Python audits is once the moment of a SIGKILL."""
    kills = 0
    steps = set()
    ended = False
    while not ended:
        folder = tmp_path / str(kills)
        store = CheckpointStore(folder)
        for count in (1, 2, 3):
            store.save(checkpoint(*[0.1 * number for number in range(count)]))
        ended = save_until_call(store, kills + 1)
        leftovers = [name for name in names(folder) if name.endswith(".partial")]
        store.recover()
        newest = store.newest()
        assert newest is not None
        assert newest.state.step in (30, 40)
        assert len(store.paths()) >= 2
        assert not any(name.endswith((".partial", ".corrupt")) for name in names(folder))
        steps.add((newest.state.step, bool(leftovers)))
        kills += not ended
    assert kills > 10
    # before, inside and after the rename that makes the checkpoint, and while an old one is removed
    assert steps == {(30, False), (30, True), (40, False), (40, True)}


def save_until_call(store: CheckpointStore, number: int) -> bool:
    """Save a fourth checkpoint in a process that is killed at its call of that number; whether it ended before."""
    process = os.fork()
    if process == 0:
        calls = 0

        def kill(event: str, _: object) -> None:
            nonlocal calls
            calls += event.startswith(("os.", "open", "shutil."))
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill)
        store.save(checkpoint(0.0, 0.1, 0.2, 0.3))
        os._exit(0)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status) == 0
