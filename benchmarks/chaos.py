"""Kills `ecd-deploy train` again and again at random instants, and compares what comes out with an undisturbed run.

Real processes, real SIGKILLs: while the program starts, between steps, and inside a save, which is
recognised from outside by its temporary folder. Then files of checkpoints are damaged, one by one.

Importing torch takes seconds. So that most of the time goes into what is tested, all processes but the
undisturbed one and those that are killed while they start are forked from one that has only imported.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Literal

from benchmarks.figures import Figure, Report
from ecd_deploy.errors import CheckpointError
from ecd_deploy.files import sha256_file
from ecd_deploy.pipelines.record.names import CHECKPOINTS_FOLDER
from ecd_deploy.training.checkpoints.store import CheckpointStore

Moment = Literal["start-up", "training", "save"]

SEED = 0
RECIPE = (
    "train.epochs=72",
    "train.checkpoint_steps=4",
    "data.train_limit=640",
    "method.kernels=2",
    "method.stages=[3]",
)
MOMENTS: tuple[Moment, ...] = ("training", "save", "training") * 12 + ("start-up",) * 4
FLIPS_PER_FILE = 100
_STARTING_SECONDS = 6.0
_TRAINING_SECONDS = 1.2
_PATIENCE_SECONDS = 120.0
_SAVE_SECONDS = 0.02
_POLL_SECONDS = 0.0002
_PRELOADED = (
    "ecd_deploy.pipelines.run",
    "ecd_deploy.training.loop",
    "rich.progress",
    "sklearn.datasets",
    "torch.utils.tensorboard.writer",
    "torchvision.transforms.v2",
)


@dataclass(frozen=True)
class Kill:
    """One SIGKILL.

    Attributes:
        moment: at which it was aimed.
        seconds: from the start of the process.
        step: of the newest checkpoint found afterwards; 0 if there is none.
        in_save: whether it left a half-written or half-removed checkpoint behind.
    """

    moment: Moment
    seconds: float
    step: int
    in_save: bool


def measure() -> Report:
    """Kill, resume, compare; then flip bits."""
    draw = random.Random(SEED)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        undisturbed, tormented = Path(folder) / "undisturbed", Path(folder) / "tormented"
        finish(undisturbed, RECIPE, fresh=True)
        kills = torment(tormented, RECIPE, MOMENTS, draw)
        finish(tormented, RECIPE)
        different = differences(undisturbed, tormented)
        noticed = flips_noticed(newest(tormented), draw)
        damaged = damage_every_file(tormented, undisturbed, RECIPE, draw)
    survived = sum(survives for survives in damaged.values())
    return Report(
        benchmark="chaos",
        figures=(
            Figure(
                name="SIGKILLs, then bit-equal",
                value=0 if different else len(kills),
                better="higher",
                must=30,
                aim=36,
                unit="kills",
            ),
            Figure(
                name="of them inside a save",
                value=sum(kill.in_save for kill in kills),
                better="higher",
                must=5,
                aim=10,
                unit="kills",
            ),
            Figure(
                name="results that differ from the undisturbed run's",
                value=len(different),
                better="lower",
                must=0,
                aim=0,
                unit="",
            ),
            Figure(
                name="bit flips noticed, of all",
                value=100 * sum(noticed.values()) / (FLIPS_PER_FILE * len(noticed)),
                better="higher",
                must=100,
                aim=100,
                unit="%",
            ),
            Figure(
                name="damaged checkpoints survived bit-equal, of all",
                value=100 * survived / len(damaged),
                better="higher",
                must=100,
                aim=100,
                unit="%",
            ),
        ),
        setting={"recipe": ("digits", *RECIPE), "seed": SEED, "flips_per_file": FLIPS_PER_FILE},
        raw={
            "seconds": round(time.perf_counter() - started, 1),
            "kills": [asdict(kill) for kill in kills],
            "kills_by_moment": dict(Counter(kill.moment for kill in kills)),
            "different": different,
            "flips_noticed": noticed,
            "damage_survived": damaged,
        },
    )


def torment(run: Path, recipe: Sequence[str], moments: Sequence[Moment], draw: random.Random) -> list[Kill]:
    """Start or resume the training once for each moment and kill it there.

    Raises:
        RuntimeError: the training ended by itself.
    """
    return [_kill_once(run, recipe, moment, draw) for moment in moments]


def finish(run: Path, recipe: Sequence[str], *, fresh: bool = False) -> str:
    """Train to the end, resuming if there is something to resume; returns what was written to stderr.

    Raises:
        RuntimeError: the command failed.
    """
    life = _Life(run, recipe, fresh=fresh)
    if code := life.wait():
        raise RuntimeError(f"training ended with {code}: {life.errors()}")
    return life.errors()


def differences(expected: Path, found: Path) -> list[str]:
    """Names of the results that differ: the last checkpoint's bits, each line of the metrics, TensorBoard's curves."""
    compared: dict[str, Callable[[Path], object]] = {
        "weights": lambda run: sha256_file(newest(run) / "weights.safetensors"),
        "momentum": lambda run: sha256_file(newest(run) / "momentum.safetensors"),
        "average": lambda run: [sha256_file(path) for path in newest(run).glob("average.safetensors")],
        "metrics.jsonl": _metrics,
        "training.json": lambda run: _without_seconds(json.loads((run / "training.json").read_text())),
        "tensorboard": _curves,
    }
    return [name for name, of in compared.items() if of(expected) != of(found)]


def newest(run: Path) -> Path:
    """The folder of the newest checkpoint."""
    return CheckpointStore(run / CHECKPOINTS_FOLDER).paths()[-1]


def flips_noticed(checkpoint: Path, draw: random.Random) -> dict[str, int]:
    """By file: how many of `FLIPS_PER_FILE` random single-bit flips make reading the checkpoint fail."""
    store = CheckpointStore(checkpoint.parent)
    noticed = Counter[str]()
    for path in sorted(checkpoint.iterdir()):
        whole = path.read_bytes()
        for _ in range(FLIPS_PER_FILE):
            path.write_bytes(_flip(whole, draw))
            try:
                store.read(checkpoint)
            except CheckpointError:
                noticed[path.name] += 1
        path.write_bytes(whole)
    return dict(noticed)


def damage_every_file(run: Path, expected: Path, recipe: Sequence[str], draw: random.Random) -> dict[str, bool]:
    """Flip a bit in, and remove, each file of the newest checkpoint: does a resume warn and give the same bits?"""
    survived = {}
    for name in sorted(path.name for path in newest(run).iterdir()):
        for damage in ("flip", "removal"):
            copy = run.with_name(f"{run.name}-{damage}-{name}")
            shutil.copytree(run, copy)
            path = newest(copy) / name
            if damage == "flip":
                path.write_bytes(_flip(path.read_bytes(), draw))
            else:
                path.unlink()
            error = finish(copy, recipe)
            survived[f"{damage} of {name}"] = "set aside" in error and not differences(expected, copy)
            shutil.rmtree(copy)
    return survived


def _kill_once(run: Path, recipe: Sequence[str], moment: Moment, draw: random.Random) -> Kill:
    before = _identity(run / "metrics.jsonl")
    started = time.perf_counter()
    life = _Life(run, recipe, fresh=moment == "start-up")
    if moment == "start-up":
        time.sleep(draw.uniform(0, _STARTING_SECONDS))
    else:
        # the file is written anew when the steps begin
        life.wait_for(lambda: _identity(run / "metrics.jsonl") not in (before, None))
        time.sleep(draw.uniform(0, _TRAINING_SECONDS))
    if moment == "save":
        life.wait_for(lambda: bool(_partials(run)))
        time.sleep(draw.uniform(0, _SAVE_SECONDS))
    life.kill()
    seconds = time.perf_counter() - started
    if (code := life.wait()) != -signal.SIGKILL:
        raise RuntimeError(f"training ended with {code} before it was killed: {life.errors()}")
    paths = CheckpointStore(run / CHECKPOINTS_FOLDER).paths()
    step = int(paths[-1].name.split("-")[1]) if paths else 0
    return Kill(moment, round(seconds, 3), step, bool(_partials(run)))


class _Life:
    """One process of `ecd-deploy train`: fresh, or forked from one that has imported everything."""

    def __init__(self, run: Path, recipe: Sequence[str], *, fresh: bool) -> None:
        self._log = run.with_name(f"{run.name}.stderr")
        arguments = ["train", str(run), "--recipe", "digits", "--resume"]
        for override in recipe:
            arguments += ["--set", override]
        self._process: subprocess.Popen[bytes] | ForkServerProcess
        if fresh:
            with self._log.open("wb") as log:
                command = [sys.executable, "-m", "ecd_deploy", *arguments]
                self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        else:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(list(_PRELOADED))
            self._process = context.Process(target=_run_command, args=(arguments, self._log))
            self._process.start()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds or the process has ended."""
        until = time.perf_counter() + _PATIENCE_SECONDS
        while not condition() and self._code() is None:
            if time.perf_counter() > until:
                raise RuntimeError(f"nothing happened for {_PATIENCE_SECONDS:.0f} s")
            time.sleep(_POLL_SECONDS)

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int | None:
        if isinstance(self._process, subprocess.Popen):
            return self._process.wait()
        self._process.join()
        return self._process.exitcode

    def errors(self) -> str:
        return self._log.read_text()

    def _code(self) -> int | None:
        return self._process.poll() if isinstance(self._process, subprocess.Popen) else self._process.exitcode


def _run_command(arguments: list[str], log: Path) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), sys.stderr.fileno())
    from ecd_deploy.cli import main

    main(arguments)


def _partials(run: Path) -> list[Path]:
    return list((run / CHECKPOINTS_FOLDER).glob(".*.partial"))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _flip(data: bytes, draw: random.Random) -> bytes:
    flipped = bytearray(data)
    flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(flipped)


def _metrics(run: Path) -> list[object]:
    return [_without_seconds(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _without_seconds(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "seconds"}


def _curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    # it says for each resume that it hides what came after the checkpoint, as it should
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    names = [name for name in events.Tags()["scalars"] if name != "seconds"]
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in names}
