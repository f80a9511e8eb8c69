# mypy: untyped-calls-exclude=accelerate

"""Loss and every gradient of each one-stage variant on the device against float64 on the CPU."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from benchmarks.gpu.parts import Findings, PartRun, Precision
from ecd_deploy.distill import Objective, TrainingModel, build_objective
from ecd_deploy.distill.convolution.triton.check import reasons_unused
from ecd_deploy.distill.convolution.triton.support import find_lack
from ecd_deploy.models import build_student
from ecd_deploy.recipe.method import MethodConfig
from ecd_deploy.recipe.train import TrainConfig
from ecd_deploy.records import Record
from ecd_deploy.training.acceleration import build_accelerator, prepared
from ecd_deploy.training.methods import build_training_model
from ecd_deploy.training.steps.optimizer import build_optimizer

Arithmetic = Literal["fp32", "tf32", "bf16"]

VARIANTS: Mapping[str, MethodConfig] = {
    "plain": MethodConfig(name="plain"),
    "ecd": MethodConfig(),
    "ecd direct": MethodConfig(connection="direct"),
    "ecd conv1x1_bn": MethodConfig(connection="conv1x1_bn"),
    "ecd dense": MethodConfig(density="dense"),
    "ecd balanced": MethodConfig(mixture="balanced"),
    "ecd chunked": MethodConfig(backend="chunked"),
    "ecd by triton": MethodConfig(backend="triton"),
    "ecd* (ensemble)": MethodConfig(logits="ensemble"),
    "ecd mutual": MethodConfig(logits="mutual"),
    "ecd teacher's logits": MethodConfig(logits="teacher"),
    "ecd features": MethodConfig(features="stage"),
    "ecd se": MethodConfig(teacher="se"),
    "ecd cbam": MethodConfig(teacher="cbam"),
    "joint": MethodConfig(name="joint"),
    "joint ensemble": MethodConfig(name="joint", logits="ensemble"),
    "joint mutual": MethodConfig(name="joint", logits="mutual"),
    "joint teacher's logits": MethodConfig(name="joint", logits="teacher"),
    "joint features by stage": MethodConfig(name="joint", features="stage"),
    "joint features by block": MethodConfig(name="joint", features="block"),
    "one": MethodConfig(name="one"),
}


@dataclass(frozen=True)
class Tolerance:
    """Largest relative errors: of the loss, of all gradients as one vector, of the worst parameter's gradient."""

    loss: float
    whole: float
    tensor: float


TOLERANCES: Mapping[Arithmetic, Tolerance] = {
    # Batch norm over few images amplifies rounding: fp32 on the CPU is up to 2e-7, .0036 and .008 from float64.
    "fp32": Tolerance(loss=1e-5, whole=0.01, tensor=0.05),
    # Ten bits of mantissa in place of 23 in products, which bf16 has seven of: an eighth of its errors, and some room.
    "tf32": Tolerance(loss=1e-3, whole=0.1, tensor=0.5),
    # On the CPU up to 2e-4, .32 and 2.1: the gradient of a router is a small difference of large numbers.
    "bf16": Tolerance(loss=1e-2, whole=0.5, tensor=4.0),
}
"""About three to five times what rounding alone was seen to do; a wrong kernel is off by the gradient's own size."""

_NEGLIGIBLE = 1e-3  # of the norm of all gradients: a parameter's error is not judged against less than that


class Comparison(Record):
    """One variant in one arithmetic: relative errors, the parameter with the worst gradient, and the verdict."""

    variant: str
    arithmetic: Arithmetic
    loss: float
    whole: float
    tensor: float
    worst: str
    passed: bool


class Correctness(Findings):
    """All comparisons so far.

    Attributes:
        planned: variants.
        comparisons: of those that were done.
        triton_unused: why layers of the backend `triton` were computed by another one.
        not_done: what this machine cannot do.
    """

    planned: int
    comparisons: tuple[Comparison, ...] = ()
    triton_unused: tuple[str, ...] = ()
    not_done: tuple[str, ...] = ()

    def faults(self) -> tuple[str, ...]:
        """Comparisons out of tolerance, and variants for which there was no time."""
        wrong = [
            f"{one.variant} in {one.arithmetic}: loss off by {one.loss:.1e}, gradients by {one.whole:.1e}, "
            f"{one.worst} by {one.tensor:.1e}"
            for one in self.comparisons
            if not one.passed
        ]
        if (done := len({one.variant for one in self.comparisons})) < self.planned:
            wrong.append(f"only {done} of {self.planned} variants were compared in the time")
        return (*wrong, *(f"Triton was not used: {reason}" for reason in self.triton_unused))

    def summary(self) -> tuple[str, ...]:
        """The largest errors in each arithmetic."""
        lines = []
        for arithmetic in TOLERANCES:
            found = [one for one in self.comparisons if one.arithmetic == arithmetic]
            if found:
                passed = sum(one.passed for one in found)
                lines.append(
                    f"{arithmetic}: {passed} of {len(found)} variants within tolerance; largest relative error of the "
                    f"loss {max(one.loss for one in found):.1e}, of the gradients {max(one.whole for one in found):.1e}"
                )
        return (*lines, *self.not_done)


def check_correctness(run: PartRun) -> Correctness:
    """Compare every variant; stops when the time is up."""
    lack = find_lack(run.device, torch.float32)
    variants = {name: method for name, method in VARIANTS.items() if lack is None or method.backend != "triton"}
    not_done = () if lack is None else (f"the backend triton: not done, {lack}",)
    findings = Correctness(planned=len(variants), not_done=not_done)
    for name, method in variants.items():
        if run.left() < 0 and not run.tiny:
            break
        findings = findings.model_copy(
            update={
                "comparisons": (*findings.comparisons, *compare(name, method, run.device, tiny=run.tiny)),
                "triton_unused": reasons_unused(),
            }
        )
        run.keep(findings)
    return findings


@dataclass(frozen=True)
class _Gradients:
    loss: float
    of: Mapping[str, Tensor]


def compare(name: str, method: MethodConfig, device: torch.device, *, tiny: bool) -> list[Comparison]:
    """Compare a variant in each arithmetic with float64 on the CPU."""
    student, side, images = ("resnet8", 8, 4) if tiny else ("resnet20", 32, 16)
    objective = build_objective(method)
    example = torch.zeros(2, 3, side, side)
    models = []
    for backend in (method.backend, "grouped"):
        torch.manual_seed(0)
        own = method.model_copy(update={"backend": backend})
        models.append(build_training_model(own, build_student(student, num_classes=100), example=example).train())
    model, reference = models
    state = {key: value.clone() for key, value in model.state_dict().items()}
    pixels, labels = torch.randn(images, 3, side, side), torch.randint(100, (images,))
    expected = _gradients(reference.double(), objective, pixels.double(), labels)
    comparisons = []
    for arithmetic in TOLERANCES:
        model.load_state_dict(state)
        with _arithmetic(arithmetic, model) as wrapped:
            found = _gradients(wrapped, objective, pixels.to(device), labels.to(device))
        comparisons.append(_judge(name, arithmetic, expected, found))
        model.cpu()
    return comparisons


@contextmanager
def _arithmetic(arithmetic: Arithmetic, model: TrainingModel) -> Iterator[torch.nn.Module]:
    """The model as Accelerate prepares it, on the device; torch's settings are put back."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = arithmetic == "tf32"
    precision: Precision = "bf16" if arithmetic == "bf16" else "no"
    config = TrainConfig(mixed_precision=precision)
    try:
        with prepared(build_accelerator(config), model, build_optimizer(model, config)) as (wrapped, _):
            yield wrapped
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def _gradients(model: torch.nn.Module, objective: Objective, images: Tensor, labels: Tensor) -> _Gradients:
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    total = objective(model(images), labels).total
    gradients = torch.autograd.grad(total, list(named.values()))
    doubled = {name: gradient.detach().double().cpu() for name, gradient in zip(named, gradients, strict=True)}
    return _Gradients(total.detach().item(), doubled)


def _judge(variant: str, arithmetic: Arithmetic, expected: _Gradients, found: _Gradients) -> Comparison:
    whole = _norm(expected.of.values())
    errors = {name: float((found.of[name] - gradient).norm()) for name, gradient in expected.of.items()}
    relative = {
        name: error / max(float(expected.of[name].norm()), _NEGLIGIBLE * whole) for name, error in errors.items()
    }
    # a gradient that is not a number is the worst of all
    worst = max(relative, key=lambda name: math.inf if math.isnan(relative[name]) else relative[name])
    loss = abs(found.loss - expected.loss) / abs(expected.loss)
    off = math.hypot(*errors.values()) / whole
    limit = TOLERANCES[arithmetic]
    return Comparison(
        variant=variant,
        arithmetic=arithmetic,
        loss=loss,
        whole=off,
        tensor=relative[worst],
        worst=worst,
        passed=loss <= limit.loss and off <= limit.whole and relative[worst] <= limit.tensor,
    )


def _norm(tensors: Iterable[Tensor]) -> float:
    return math.hypot(*(float(tensor.norm()) for tensor in tensors))
