"""The real commands on the device: whole runs, as they are and by `accelerate launch`, and short trainings."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.gpu.commands import DIRECT, Ended, Program, describe_checkout, launched, run_command
from benchmarks.gpu.parts import Findings, PartRun
from benchmarks.gpu.resuming import Resumed, kill_and_resume, newest_checkpoint
from ecd_deploy.data import ImageTensors, eval_batches, load_data
from ecd_deploy.pipelines.gate.check import Verdict
from ecd_deploy.pipelines.gate.decide import GateReport
from ecd_deploy.pipelines.record.environment import Environment
from ecd_deploy.pipelines.record.names import BOM_NAME, ENVIRONMENT_NAME, GATE_NAME, TRAINING_NAME
from ecd_deploy.pipelines.steps.train import training_model
from ecd_deploy.recipe.recipe import load_recipe
from ecd_deploy.records import Record
from ecd_deploy.training import TrainingResult, load_weights

_RECIPE = "digits"
_TEST_BATCH = 256
_PATIENCE_SECONDS = 600.0
_OF_GPUS = (("fp16", "train.mixed_precision=fp16"), ("triton", "method.backend=triton"))
_LATENCY = "_ms_max"  # ending of the limits of latency, which other work on the machine leaves undecided


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """How long the trainings are: `--set` arguments of each kind of command, and how many run side by side."""

    run: tuple[str, ...]
    train: tuple[str, ...]
    killed: tuple[str, ...]
    kill_after: int
    side_by_side: int
    top1_tolerance: float


_FULL = _Sizes(
    run=("train.trackers=[]",),
    train=("train.trackers=[]", "train.epochs=5"),
    killed=("train.trackers=[]", "train.epochs=10", "train.checkpoint_steps=5"),
    kill_after=60,
    side_by_side=5,
    top1_tolerance=0.02,
)
_REHEARSED = ("data.train_limit=192", "train.trackers=[]")
_TINY = _Sizes(
    run=(
        *_REHEARSED,
        "train.epochs=2",
        "gate.min_top1=0.0",
        "gate.max_drop=1.0",
        "gate.p90_ms_max=1000.0",
        "profile.min_seconds=0.1",
    ),
    train=(*_REHEARSED, "train.epochs=1"),
    killed=(*_REHEARSED, "train.epochs=8", "train.checkpoint_steps=1"),
    kill_after=4,
    side_by_side=2,
    top1_tolerance=0.2,
)


class Training(Record):
    """A training by a command.

    Attributes:
        name: what it is to show.
        ended: how the command ended.
        device: that the checkpoint says it was trained on: "cuda", "cpu".
        scale: of the losses at the end of fp16.
        validation_top1: of the last epoch, a fraction.
        triton_unused: why another backend took the place of `triton`.
    """

    name: str
    ended: Ended
    device: str | None = None
    scale: float | None = None
    validation_top1: float | None = None
    triton_unused: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether the command did all that it had to."""
        return self.ended.code == 0


class WholeRun(Training):
    """A run from training to gate.

    Attributes:
        accelerator: the GPU's name in `environment.json`.
        gate: its verdict.
        not_passed: checks of the gate, parity among them, that did not pass, but for undecided latencies.
        has_bom: whether the last file of a run is there.
    """

    accelerator: str | None = None
    gate: str | None = None
    not_passed: tuple[str, ...] = ()
    has_bom: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether all was written; undecided latencies, which end a run with 3 and a launch with 1, are allowed."""
        return self.has_bom and (self.ended.code == 0 or (self.gate == Verdict.INCONCLUSIVE and not self.not_passed))


class Engine(Findings):
    """What the commands did.

    Attributes:
        expected_device: kind of device that the trainings must be on.
        runs: whole runs.
        trainings: in fp16, by Triton and with accumulated gradients.
        resumed: after a SIGKILL.
        top1_on_cpu: of the first run's student on the validation images, which the device gave its own number for.
        top1_tolerance: how far the two may be apart.
        not_done: what this device cannot do.
    """

    expected_device: str
    runs: tuple[WholeRun, ...] = ()
    trainings: tuple[Training, ...] = ()
    resumed: Resumed | None = None
    top1_on_cpu: float | None = None
    top1_tolerance: float
    not_done: tuple[str, ...] = ()

    def faults(self) -> tuple[str, ...]:
        """Commands that failed, the wrong device, what the gate refused, and differences that are too large."""
        found = [
            f"{training.name}: ended with {training.ended.code}, trained on {training.device}"
            for training in (*self.runs, *self.trainings)
            if not training.is_complete or training.device != self.expected_device
        ]
        found += [f"{one.name}: Triton was not used: {why}" for one in self.trainings for why in one.triton_unused]
        for run in self.runs:
            if run.gate is None or run.not_passed:
                found.append(f"{run.name}: gate {run.gate}; not passed: {', '.join(run.not_passed) or 'all'}")
            if run.accelerator is None and self.expected_device == "cuda":
                found.append(f"{run.name}: {ENVIRONMENT_NAME} names no GPU")
        found += () if self.resumed is None else self.resumed.faults()
        on_device = self.runs[0].validation_top1 if self.runs else None
        if on_device is not None and self.top1_on_cpu is not None:
            found += self._compare(on_device, self.top1_on_cpu)
        return tuple(found)

    def _compare(self, on_device: float, on_cpu: float) -> list[str]:
        if abs(on_device - on_cpu) <= self.top1_tolerance:
            return []
        return [f"validation top-1 is {on_device} on the device and {on_cpu} on the CPU"]

    def summary(self) -> tuple[str, ...]:
        """A line for each command, and for the resumed training."""
        lines = [
            f"{run.name}: gate {run.gate}, on {run.accelerator or run.device}, {run.ended.seconds:.0f} s"
            for run in self.runs
        ]
        lines += [
            f"{training.name}: ended with {training.ended.code}, validation top-1 {training.validation_top1}"
            for training in self.trainings
        ]
        if self.resumed is not None:
            lines.append(self.resumed.summary())
        return (*lines, *self.not_done)


def check_engine(run: PartRun) -> Engine:
    """Run the commands, several side by side: they wait for the host most of the time."""
    sizes = _TINY if run.tiny else _FULL
    is_cuda = run.device.type == "cuda"
    findings = Engine(
        expected_device=run.device.type,
        top1_tolerance=sizes.top1_tolerance,
        not_done=() if is_cuda else ("fp16, triton: not done, they need a GPU",),
    )
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(sizes.side_by_side) as threads:
        folder = Path(name)
        describe_checkout(folder)
        until = time.monotonic() + (_PATIENCE_SECONDS if run.tiny else run.left())
        bf16 = (*sizes.run, "train.mixed_precision=bf16")  # the recipe decides, whatever the launcher says
        runs = [
            threads.submit(_whole_run, folder, "run", DIRECT, sizes.run, until),
            threads.submit(_whole_run, folder, "bf16-launch", launched("bf16", cpu=not is_cuda), bf16, until),
        ]
        resumed = threads.submit(kill_and_resume, folder, (_RECIPE, *_set(sizes.killed)), sizes.kill_after, until)
        trainings = [
            threads.submit(_train, folder, title, (*sizes.train, setting), until)
            for title, setting in (
                ("accumulation", "train.gradient_accumulation=2"),
                *(_OF_GPUS if is_cuda else ()),
            )
        ]
        findings = findings.model_copy(update={"runs": tuple(task.result() for task in runs)})
        run.keep(findings)
        findings = findings.model_copy(
            update={"trainings": tuple(task.result() for task in trainings), "resumed": resumed.result()}
        )
        run.keep(findings)
        if findings.runs[0].device is not None:
            findings = findings.model_copy(update={"top1_on_cpu": _top1_on_cpu(folder / "run", sizes.run)})
    return findings


def _set(overrides: tuple[str, ...]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


def _whole_run(folder: Path, name: str, program: Program, overrides: tuple[str, ...], until: float) -> WholeRun:
    ended = run_command(program, ["run", _RECIPE, "--out", name, *_set(overrides)], folder, until)
    root = folder / name
    training = _described(name, root, ended)
    if not (root / GATE_NAME).is_file():
        return WholeRun(**training.model_dump())
    report = GateReport.model_validate_json((root / GATE_NAME).read_bytes())
    environment = Environment.model_validate_json((root / ENVIRONMENT_NAME).read_bytes())
    not_passed = tuple(
        f"{check.name} ({check.reason})"
        for check in report.checks
        if check.verdict is Verdict.FAIL or (check.verdict is Verdict.INCONCLUSIVE and _LATENCY not in check.name)
    )
    return WholeRun(
        **training.model_dump(),
        accelerator=environment.accelerator,
        gate=report.verdict.value,
        not_passed=not_passed,
        has_bom=(root / BOM_NAME).is_file(),
    )


def _train(folder: Path, name: str, overrides: tuple[str, ...], until: float) -> Training:
    ended = run_command(DIRECT, ["train", name, "--recipe", _RECIPE, *_set(overrides)], folder, until)
    return _described(name, folder / name, ended)


def _described(name: str, root: Path, ended: Ended) -> Training:
    """What a run directory says of its training; nothing if the training did not end."""
    if not (root / TRAINING_NAME).is_file():
        return Training(name=name, ended=ended)
    checkpoint = newest_checkpoint(root)
    scaler = checkpoint.state.scaler
    result = TrainingResult.model_validate_json((root / TRAINING_NAME).read_bytes())
    return Training(
        name=name,
        ended=ended,
        device=checkpoint.state.training.device,
        scale=None if scaler is None else scaler.scale,
        validation_top1=result.last.validation_top1,
        triton_unused=() if result.use is None else result.use.triton_unused,
    )


def _top1_on_cpu(root: Path, overrides: tuple[str, ...]) -> float:
    """Top-1 of a run's student on its validation images, without the device."""
    recipe = load_recipe(_RECIPE, overrides)
    data = load_data(recipe.data, seed=recipe.seed)
    threads = torch.get_num_threads()
    model = training_model(recipe, data)
    torch.set_num_threads(threads)  # which the recipe had set
    load_weights(root, "last", model)
    student = model.student.cpu().eval()
    validation = None if data.validation is None else ImageTensors.of(data.validation)
    batches = () if validation is None else eval_batches(validation, data.normalisation, _TEST_BATCH)
    with torch.no_grad():
        hits = torch.cat([student(batch.images).argmax(dim=1) == batch.labels for batch in batches])
    return float(hits.double().mean())
