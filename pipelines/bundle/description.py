"""`bundle.json`: what `run.py` of a bundle compares with."""

from __future__ import annotations

from typing import Literal

from ecd_deploy.measure.latency.measurement import runner_arguments
from ecd_deploy.pipelines.device.budgets import load_device
from ecd_deploy.pipelines.evaluate.preprocessing import Preprocessing
from ecd_deploy.recipe.gate import GateConfig
from ecd_deploy.recipe.profile import ProfileConfig
from ecd_deploy.records import Record

_GRACE_SECONDS = 300.0
_DEFAULT_DROP = 0.01
_LATENCY_LIMITS = ("p90_ms_max", "p95_ms_max", "p99_ms_max")


class LatencyConditions(Record, allow_inf_nan=False):
    """How latency is measured there, and what limits it."""

    threads: int
    options: tuple[str, ...]
    """Of the device runner."""
    provider: str | None
    """Execution provider of onnxruntime on which scores and latency are checked; None for the CPU's."""
    timeout_seconds: float
    device: str | None
    """Whose limits these are; None for any place."""
    machine: str | None
    """What `uname -m` prints on that device."""
    limits: dict[str, float]
    """In milliseconds, each decided by an upper bound."""


class BundleDescription(Record, allow_inf_nan=False):
    """What the model takes and must give."""

    schema_version: Literal[1] = 1
    name: str
    student: str | None
    """Of the recipe; None for a model that was not made here."""
    format: str
    model: str
    """File name of the artefact."""
    model_sha256: str
    student_digest: str | None
    recipe_digest: str | None
    onnxruntime: str
    """The version by which the artefact was checked; another one that reads the model will do."""
    test_images: int
    test_top1: float
    """Of this artefact on the whole test set, where the bundle was made."""
    input: str
    """Name of the model's input."""
    output: str
    scores: Literal["logits", "probabilities"]
    """What the output holds."""
    preprocessing: Preprocessing
    """From an image to the input."""
    batch: int | None
    """The only batch size that runs; None for any."""
    max_difference: float
    """Largest difference of a score from what is recorded: that of the PyTorch student, or of the model itself."""
    min_same_class: float
    samples_correct: int
    """Samples that this artefact classifies correctly where the bundle was made."""
    max_drop: float
    """Largest part of the samples that may be lost against that."""
    latency: LatencyConditions


def latency_conditions(config: ProfileConfig, gate: GateConfig) -> LatencyConditions:
    """Conditions and limits, as a run or a configuration gives them."""
    # Where the run constrained its host to resemble a device, the device itself is not constrained.
    profile = config.model_copy(update={"cpus": None, "memory_mb": None})
    limits = {name: getattr(gate, name) for name in _LATENCY_LIMITS}
    return LatencyConditions(
        threads=profile.threads,
        options=tuple(runner_arguments(profile)),
        provider=profile.provider,
        timeout_seconds=profile.max_seconds + _GRACE_SECONDS,
        device=profile.device,
        machine=None if profile.device is None else load_device(profile.device).facts.machine,
        limits={name: limit for name, limit in limits.items() if limit is not None},
    )


def largest_drop(gate: GateConfig) -> float:
    """The part of the samples that may be lost on a device."""
    return _DEFAULT_DROP if gate.max_drop is None else gate.max_drop
