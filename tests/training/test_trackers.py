"""Trackers against their own servers and files; where the extra [tracking] is absent, what needs no library."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from accelerate.state import PartialState
from accelerate.tracking import GeneralTracker

from ecd_deploy.data import DataSplits
from ecd_deploy.errors import ArtefactError
from ecd_deploy.recipe.recipe import load_recipe
from ecd_deploy.training.trackers import Trackers
from tests.commands import run_command
from tests.training.helpers import MakeModel, MakeRecipe, at_forward, interrupt, metrics, run
from tests.without import COMMAND, run_without

TINY = (
    *("train.epochs=2", "data.train_limit=200", "data.test_limit=40", "method.name=plain", "profile.min_seconds=0.05"),
    *("profile.warmup_seconds=0.0", "profile.min_samples=44", "gate.min_top1=0.0", "gate.max_drop=1.0"),
)
FAILS = "'{}' fails, and the run goes on without it"


def words(*overrides: str) -> list[str]:
    return [word for value in (*TINY, *overrides) for word in ("--set", value)]


class Broken(GeneralTracker):
    """Answers once."""

    name = "broken"
    requires_logging_directory = False
    tracker: ClassVar[None] = None

    def __init__(self, error: Exception) -> None:
        self.steps: list[int | None] = []
        self._error = error

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        del values, kwargs
        self.steps.append(step)
        if len(self.steps) > 1:
            raise self._error


def test_a_tracker_that_fails_is_left_out_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    PartialState()
    broken, trackers = Broken(ConnectionError("nobody answers")), Trackers()
    trackers.follow("mlflow", lambda: broken, {})
    for step in (5, 10, 15):
        trackers.log({"loss": 1.0}, step)
    trackers.close()
    assert broken.steps == [5, 10]
    (said,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert f"train.trackers: {FAILS.format('mlflow')}: ConnectionError: nobody answers" in said


def test_tensorboards_own_files_are_no_server() -> None:
    trackers = Trackers()
    trackers.follow("tensorboard", lambda: Broken(PermissionError(13, "Permission denied")), {})
    trackers.log({"loss": 1.0}, 5)
    with pytest.raises(ArtefactError, match="cannot write TensorBoard's events: Permission denied"):
        trackers.log({"loss": 1.0}, 10)


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    arguments = ["train", "run", "--recipe", "digits", *words("train.trackers=['mlflow']")]
    ended = run_without(("mlflow",), COMMAND, arguments, cwd=tmp_path)
    assert ended.code == 2
    assert "train.trackers: mlflow is not installed: pip install 'ecd-deploy[tracking]'" in ended.err
    assert not (tmp_path / "run").exists()


def test_the_earlier_key_for_tensorboard_is_read() -> None:
    assert load_recipe("digits", ("train.tensorboard=false",)).train.trackers == ()
    assert load_recipe("digits", ("train.tensorboard=true",)).train.trackers == ("tensorboard",)


@contextmanager
def mlflow_server(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """An MLflow server of its own on the loopback, with its SQLite store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    store = ["--backend-store-uri", f"sqlite:///{folder}/store.db", "--artifacts-destination", str(folder / "files")]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *store], env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    try:
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "server.log").read_text()
                time.sleep(0.1)
        yield url, process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a server with its workers."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as (url, _):
        yield url


def ask(url: str, path: str, **query: object) -> Any:
    """Ask MLflow's REST interface, not its client."""
    address = f"{url}/api/2.0/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(address, timeout=60) as answer:
        return json.loads(answer.read())


def curve(url: str, run_id: str, name: str) -> list[tuple[int, float]]:
    found = ask(url, "mlflow/metrics/get-history", run_id=run_id, metric_key=name)["metrics"]
    return sorted({(int(point["step"]), point["value"]) for point in found})


def status(url: str, run_id: str) -> str:
    return str(ask(url, "mlflow/runs/get", run_id=run_id)["run"]["info"]["status"])


@pytest.mark.needs("mlflow")
def test_mlflow_has_parameters_curves_verdict_and_artefacts(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    odd = ("train.trackers=['mlflow']", 'train.class_weights={"3" = 2.0}', 'gate.classes={"3" = {min_recall = 0.0}}')
    ended = run_command(["run", "digits", "--out", "tracked", "--no-rehearsal", *words(*odd)], cwd=tmp_path)
    assert ended.code in {0, 3}, ended.err  # 3: a busy test machine
    root = tmp_path / "tracked"
    run_id = json.loads((root / "trackers.json").read_text())["runs"]["mlflow"]
    found = ask(server, "mlflow/runs/get", run_id=run_id)["run"]
    assert (found["info"]["run_name"], found["info"]["status"]) == ("tracked", "FINISHED")
    experiment = ask(server, "mlflow/experiments/get", experiment_id=found["info"]["experiment_id"])["experiment"]
    assert experiment["name"] == "digits"

    parameters = {entry["key"]: entry["value"] for entry in found["data"]["params"]}
    assert parameters["train.epochs"] == "2"
    assert parameters["student.name"] == "resnet8"
    assert parameters["train.class_weights.3"] == "2.0"
    assert {entry["key"]: entry["value"] for entry in found["data"]["tags"]}["verdict"] == (
        json.loads((root / "gate.json").read_text())["verdict"]
    )
    lines = metrics(root)
    for name in ("loss", "validation_top1", "validation_balanced_accuracy"):
        assert curve(server, run_id, name) == [(line["step"], line[name]) for line in lines]
    values = {entry["key"]: entry["value"] for entry in found["data"]["metrics"]}
    validation = json.loads((root / "validation.json").read_text())
    top1 = validation["onnx_top1"]["candidate"]
    assert values["test_top1"] == top1["correct"] / top1["images"]
    assert values["bytes onnx"] == (root / "exports" / "student.onnx").stat().st_size
    for name in ("recipe.toml", "gate.json", "report.html", "MODEL_CARD.md", "exports/student.onnx"):
        address = f"{server}/api/2.0/mlflow-artifacts/artifacts/{experiment['experiment_id']}/{run_id}/artifacts/{name}"
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert answer.read() == (root / name).read_bytes()
    assert run_command(["verify", "tracked"], cwd=tmp_path).code == 0


@pytest.mark.needs("mlflow")
def test_a_resumed_training_goes_on_with_its_run(
    server: str,
    make_model: MakeModel,
    make_recipe: MakeRecipe,
    data: DataSplits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    recipe, directory = make_recipe("train.trackers=['mlflow']"), tmp_path / "resumed"
    broken = make_model()
    at_forward(broken, 8, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(broken, data, recipe, directory)
    before = (directory / "trackers.json").read_text()
    run_id = json.loads(before)["runs"]["mlflow"]
    assert len(curve(server, run_id, "loss")) == 1
    assert status(server, run_id) == "FAILED"
    run(make_model(), data, recipe, directory, resume=True)
    assert (directory / "trackers.json").read_text() == before
    assert status(server, run_id) == "FINISHED"
    assert curve(server, run_id, "loss") == [(line["step"], line["loss"]) for line in metrics(directory)]


@pytest.mark.needs("mlflow")
def test_a_server_that_goes_away_ends_no_training(
    make_model: MakeModel,
    make_recipe: MakeRecipe,
    data: DataSplits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    untracked = make_model()
    run(untracked, data, make_recipe(), tmp_path / "untracked")
    with mlflow_server(tmp_path) as (url, process):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        model = make_model()
        at_forward(model, 8, lambda _: end(process))
        run(model, data, make_recipe("train.trackers=['mlflow']"), tmp_path / "tracked")
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [FAILS.format("mlflow") in line for line in said] == [True]
    assert metrics(tmp_path / "tracked") == metrics(tmp_path / "untracked")
    assert all(
        torch.equal(tensor, other)
        for tensor, other in zip(model.state_dict().values(), untracked.state_dict().values(), strict=True)
    )


@pytest.mark.needs("mlflow")
def test_a_server_that_is_away_from_the_start_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    ended = run_command(
        ["train", "run", "--recipe", "digits", "--no-rehearsal", *words("train.trackers=['mlflow']")], cwd=tmp_path
    )
    assert ended.code == 0, ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert FAILS.format("mlflow") in ended.err
    assert len(metrics(tmp_path / "run")) == 2
    assert not (tmp_path / "run" / "trackers.json").exists()


def offline_records(path: Path) -> Iterator[Any]:
    """What a `.wandb` file holds: protobufs in LevelDB's log format, after a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # no header fits into the rest of a block
            place += 32768 - place % 32768
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        parts += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


@pytest.mark.needs("wandb")
def test_wandb_keeps_parameters_curves_verdict_and_artefacts_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    options = words("train.trackers=['wandb']")
    ended = run_command(["run", "digits", "--out", "tracked", "--no-rehearsal", *options], cwd=tmp_path)
    assert ended.code in {0, 3}, ended.err
    root = tmp_path / "tracked"
    run_id = json.loads((root / "trackers.json").read_text())["runs"]["wandb"]
    files = sorted((tmp_path / "wandb").glob(f"offline-run-*-{run_id}/run-{run_id}.wandb"))
    records = [record for file in files for record in offline_records(file)]
    (name,) = {record.run.display_name for record in records if record.WhichOneof("record_type") == "run"}
    assert name == "tracked"
    config = {item.key: item.value_json for record in records for item in record.config.update}
    assert json.loads(config["train.epochs"]) == 2
    points = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    assert [(point["_step"], point["loss"]) for point in points] == [
        (line["step"], line["loss"]) for line in metrics(root)
    ]
    summary = {item.key: item.value_json for record in records for item in record.summary.update}
    assert json.loads(summary["verdict"]) == json.loads((root / "gate.json").read_text())["verdict"]
    entries = {entry.path for record in records for entry in record.artifact.manifest.contents}
    entries |= {entry.path for record in records for entry in record.request.log_artifact.artifact.manifest.contents}
    assert {"recipe.toml", "gate.json", "report.html", "exports/student.onnx"} <= entries


@pytest.mark.needs("wandb")
def test_without_a_login_wandb_is_left_out_and_that_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    options = words("train.trackers=['wandb']")
    ended = run_command(["train", "run", "--recipe", "digits", "--no-rehearsal", *options], cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert FAILS.format("wandb") in ended.err
    assert "wandb login" in ended.err
