"""One student of a search: what it costs, known before it is trained, and then how it passes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

from ecd_deploy.data import DataSplits
from ecd_deploy.distill import PlainModel
from ecd_deploy.errors import Interrupted, Terminated, TrainingError
from ecd_deploy.files import write_atomic
from ecd_deploy.pipelines.device.budgets import load_device
from ecd_deploy.pipelines.device.remote import measure_on_host
from ecd_deploy.pipelines.gate.check import Check, Verdict, named, overall, size_checks
from ecd_deploy.pipelines.gate.decide import GateReport
from ecd_deploy.pipelines.gate.latency import latency_checks
from ecd_deploy.pipelines.record.names import GATE_NAME, METRICS_NAME, RECIPE_NAME
from ecd_deploy.pipelines.record.profile import Profile, describe
from ecd_deploy.pipelines.record.recipe_file import recipe_to_toml
from ecd_deploy.pipelines.record.run_directory import open_run
from ecd_deploy.pipelines.steps.export import export_all
from ecd_deploy.pipelines.steps.measure import profile_bytes
from ecd_deploy.pipelines.steps.train import example_images, student_factory
from ecd_deploy.recipe.recipe import Recipe, parse_recipe
from ecd_deploy.records import Record
from ecd_deploy.split import split_student

CANDIDATE_NAME = "candidate.json"
RUN_FOLDER = "run"
_COSTED = "onnx"
"""The format that is measured before the training."""
_POLL_SECONDS = 0.5
_FINISHED = (0, 1, 3)


class State(StrEnum):
    """How far a student of the ladder came."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    RULED_OUT = "ruled out"
    """Too large or too slow, seen before any training."""
    HOPELESS = "hopeless"
    """Stopped in training, by the `EarlyStop` rule."""
    NOT_NEEDED = "not needed"
    """Larger than one that passed."""


class EarlyStop(Record):
    """When a training is given up: its validation top-1 is far below `gate.min_top1` late in the training.

    The student is stopped if, once `share` of the epochs are done, its best validation top-1 is more than `margin`
    below the limit. This is a rule of thumb, not a bound: the last epochs of a decaying learning rate can gain several
    points, which is what the margin is for. Without a validation split it cannot be applied.
    """

    share: float = 0.5
    margin: float = 0.15

    def reason(self, curve: list[float], epochs: int, min_top1: float | None) -> str | None:
        """Why to stop after these epochs' validation top-1, fractions; None to continue."""
        if min_top1 is None or not curve or len(curve) >= epochs or len(curve) < self.share * epochs:
            return None
        if max(curve) >= min_top1 - self.margin:
            return None
        return (
            f"validation top-1 {max(curve):.2%} after {len(curve)} of {epochs} epochs, "
            f"more than {100 * self.margin:g} points below {min_top1:.2%}"
        )


class Cost(Record):
    """What a student costs whatever its weights; measured with random ones."""

    student: str
    recipe_digest: str
    parameters: int
    onnx_bytes: int
    place: str
    p90_ms: float | None
    checks: tuple[Check, ...]


class Candidate(Record):
    """Written to `candidate.json` once it is decided.

    Attributes:
        cost: measured before the training.
        state: the outcome.
        reason: in words.
        checks: of the gate, cost included; empty where it was not trained to the end.
        top1: of the ONNX student on the test images; None where it was not measured.
        epochs: done.
    """

    schema_version: Literal[2] = 2
    cost: Cost
    state: State
    reason: str
    checks: tuple[Check, ...] = ()
    top1: float | None = None
    epochs: int = 0


def folder_of(out: Path, student: str) -> Path:
    """Where a student of a search is kept."""
    return out / re.sub(r"[^\w.-]", "-", student)


def recipe_of(recipe: Recipe, student: str) -> Recipe:
    """The recipe with another student.

    Raises:
        RecipeError: they do not fit.
    """
    changed = recipe.model_copy(update={"student": recipe.student.model_copy(update={"name": student})})
    return parse_recipe(recipe_to_toml(changed), f"the recipe with {student}")


def measure_cost(recipe: Recipe, data: DataSplits, host: str | None = None, python: str = "python3") -> Cost:
    """Export an untrained student and measure size, latency and memory of it, here or over ssh by the host's Python.

    Raises:
        StudentError: there is no such student.
        ArtefactError: it cannot be exported or measured.
    """
    torch.manual_seed(recipe.seed)
    factory = student_factory(recipe, data)
    module = factory()
    only_onnx = recipe.model_copy(update={"export": recipe.export.model_copy(update={"formats": (_COSTED,)})})
    student = split_student(PlainModel(module), example_images(data), factory=factory, unused=recipe.student.unused)
    (written,) = export_all(only_onnx, student, data)
    profile = _measured(written.exporter.filename, written.data, recipe, host, python)
    checks = [
        *size_checks(written.exporter.filename, len(written.data), recipe.gate.max_size_mb),
        *latency_checks(recipe.gate, profile, recipe.profile.device),
    ]
    if recipe.gate.artefact == "all":
        checks = [named(check, _COSTED) for check in checks]
    return Cost(
        student=recipe.student.name,
        recipe_digest=recipe.digest(),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        onnx_bytes=len(written.data),
        place=profile.place,
        p90_ms=profile.latency.at(0.9).value_ms,
        checks=tuple(checks) if _ships_fp32(recipe) else (),
    )


def train_candidate(recipe: Recipe, cost: Cost, folder: Path, rule: EarlyStop | None, console: Console) -> Candidate:
    """Run all steps in a process of their own, resumed where it was interrupted, and watch the training.

    Raises:
        TrainingError: the run broke; its last words are in the text, all of them in `run.log`.
        Interrupted: somebody else stopped it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recipe_file, root = folder / RECIPE_NAME, folder / RUN_FOLDER
    write_atomic(recipe_file, recipe_to_toml(recipe).encode())
    command = [sys.executable, "-m", "ecd_deploy", "run", str(recipe_file), "--out", str(root), "--resume"]
    reason: str | None = None
    with (folder / "run.log").open("ab") as log, subprocess.Popen(command, stdout=log, stderr=log) as child:
        try:
            while child.poll() is None:
                time.sleep(_POLL_SECONDS)
                if rule is not None and reason is None:
                    reason = rule.reason(_curve(_epochs(root)), recipe.train.epochs, recipe.gate.min_top1)
                    if reason is not None:
                        console.print(f"{cost.student}: stopped, {reason}")
                        child.terminate()
        finally:
            if child.poll() is None:
                child.terminate()
    epochs = len(_epochs(root))
    if child.returncode == Terminated.exit_code and reason is not None:
        return Candidate(cost=cost, state=State.HOPELESS, reason=reason, epochs=epochs)
    if child.returncode in (Interrupted.exit_code, Terminated.exit_code):
        raise Interrupted(f"the training of {cost.student} was stopped; resume it with --resume")
    if child.returncode not in _FINISHED:
        words = (folder / "run.log").read_text(errors="replace").strip().splitlines()[-1:]
        raise TrainingError(f"{cost.student} ended with {child.returncode}: {' '.join(words)}; see {folder}/run.log")
    with open_run(root) as directory:
        report = directory.read_json(GATE_NAME, GateReport)
    return decided(cost, report, epochs)


def decided(cost: Cost, report: GateReport, epochs: int) -> Candidate:
    """Put the gate's checks together with those made before, which count where they decided."""
    before = {check.name: check for check in cost.checks if check.verdict is not Verdict.INCONCLUSIVE}
    checks = tuple(before.get(check.name, check) for check in report.checks)
    verdict = overall(checks)
    wanting = [f"{check.name}: {check.reason}" for check in checks if check.verdict is verdict]
    accuracy = next((check.value for check in checks if check.name in {"min_top1", f"min_top1 {_COSTED}"}), None)
    reason = "every limit is met" if verdict is Verdict.PASS else "; ".join(wanting)
    return Candidate(cost=cost, state=State(verdict), reason=reason, checks=checks, top1=accuracy, epochs=epochs)


def _ships_fp32(recipe: Recipe) -> bool:
    """Whether the limits are of the fp32 ONNX file for certain, which alone can be measured before the training."""
    smaller = any(name == "ort" or name.startswith("onnx-") for name in recipe.export.formats)
    return recipe.gate.artefact in {"onnx", "all"} or (recipe.gate.artefact == "recommended" and not smaller)


def _measured(file: str, model: bytes, recipe: Recipe, host: str | None, python: str) -> Profile:
    if host is None:
        return profile_bytes(file, model, recipe.profile)
    name = recipe.profile.device
    machine = None if name is None else load_device(name).facts.machine
    found = measure_on_host(host, model, recipe.profile, python=python, machine=machine)
    return describe(file, model, found, name or "device")


def _epochs(root: Path) -> list[dict[str, Any]]:
    """The whole lines of a training's `metrics.jsonl` so far."""
    log = root / METRICS_NAME
    lines = log.read_bytes().splitlines(keepends=True) if log.is_file() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def _curve(epochs: list[dict[str, Any]]) -> list[float]:
    """Validation top-1 by epoch; empty without a validation split."""
    return [float(epoch["validation_top1"]) for epoch in epochs if "validation_top1" in epoch]
