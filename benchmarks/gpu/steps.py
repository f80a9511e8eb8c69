# mypy: untyped-calls-exclude=accelerate

"""One training step of each candidate, as the engine does it, on a batch that stays on the device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from typing import Literal

import torch

from benchmarks.gpu.parts import Precision
from benchmarks.reference import ReferenceECD, reference_loss, reference_optimizer
from ecd_deploy.data import Batch
from ecd_deploy.distill import build_objective
from ecd_deploy.distill.convolution.triton.check import reasons_unused
from ecd_deploy.distill.convolution.triton.support import find_lack
from ecd_deploy.models import build_student
from ecd_deploy.recipe.data import DataConfig
from ecd_deploy.recipe.method import MethodConfig
from ecd_deploy.recipe.recipe import Recipe
from ecd_deploy.recipe.student import StudentConfig
from ecd_deploy.recipe.train import TrainConfig
from ecd_deploy.training.acceleration import build_accelerator, prepared
from ecd_deploy.training.fused import fusing
from ecd_deploy.training.methods import build_training_model
from ecd_deploy.training.steps import cuda_graph
from ecd_deploy.training.steps.cuda_graph import GraphedWork, graphed
from ecd_deploy.training.steps.losses import EpochLosses
from ecd_deploy.training.steps.optimizer import build_optimizer
from ecd_deploy.training.steps.step import StepWork, begin_step

CandidateName = Literal["student", "ecd", "ecd_triton", "ecd_star", "mutual", "reference"]
Mode = Literal["eager", "graph", "fused"]
Step = Callable[[], object]
"""Does one step; on a GPU it returns before the step has ended."""

METHODS: Mapping[CandidateName, MethodConfig] = {
    "student": MethodConfig(name="plain"),
    "ecd": MethodConfig(name="ecd"),
    "ecd_triton": MethodConfig(name="ecd", backend="triton"),
    "ecd_star": MethodConfig(name="ecd", logits="ensemble"),
    "mutual": MethodConfig(name="joint", logits="mutual"),
}
"""All but the hand-written reference, which is `benchmarks.reference`."""

_CUDA_GRAPHS: Mapping[Mode, Literal["never", "auto", "fused"]] = {"eager": "never", "graph": "auto", "fused": "fused"}
_FUSED: tuple[CandidateName, ...] = ("student", "ecd", "ecd_triton")
_WARM_UP = 3
_STEPS_OF_AN_EPOCH = 391  # of 50,000 images: the rate does not fall while a step is timed


class NotRecordedError(Exception):
    """The engine found that a step cannot be done as it was asked for, as a CUDA graph or by Triton, and why."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Network and images of a step.

    Attributes:
        name: for tables.
        student: its name.
        side: of an image, in pixels.
        batch: images of a step.
        kernels: n of the dynamic convolutions.
        classes: of the images.
        has_reference: whether the hand-written step is of this network.
        has_triton: whether it is short enough for Triton's interpreter, where there is no GPU.
    """

    name: str
    student: str
    side: int
    batch: int
    kernels: int
    classes: int = 100
    has_reference: bool = False
    has_triton: bool = True

    def candidates(self, device: torch.device, mode: Mode) -> tuple[CandidateName, ...]:
        """Those that can be measured on it."""
        lacks_triton = not self.has_triton or find_lack(device, torch.float32) is not None
        if mode == "fused":
            # the interpreter takes its time
            return () if lacks_triton else _FUSED if device.type == "cuda" else _FUSED[:1]
        names = tuple(name for name in METHODS if name != "ecd_triton" or not lacks_triton)
        return (*names, "reference") if self.has_reference else names


@contextmanager
def building_step(
    candidate: CandidateName, workload: Workload, precision: Precision, device: torch.device, mode: Mode
) -> Iterator[Step]:
    """Build a candidate and its step; the models are let go of when the context ends.

    The first step of a graph records it. Without a GPU there is no graph, and the step stays as it is.

    Raises:
        NotRecordedError: the engine does the step eagerly, though a graph was asked for, or without Triton.
    """
    torch.manual_seed(0)
    if candidate == "reference":
        body = _reference_body(workload, precision, device)
        yield _recorded(body, device) if mode == "graph" and device.type == "cuda" else body
        return
    with _engine_step(METHODS[candidate], workload, precision, mode) as step:
        with _engine_warnings() as messages:
            step()
        messages += reasons_unused() if candidate == "ecd_triton" else ()
        if messages:
            raise NotRecordedError(messages[0])
        yield step


@contextmanager
def _engine_step(method: MethodConfig, workload: Workload, precision: Precision, mode: Mode) -> Iterator[Step]:
    """The step of the training loop, always with the same batch."""
    recipe = Recipe(
        name="speed",
        data=DataConfig(source="cifar100"),
        student=StudentConfig(name=workload.student),
        method=method.model_copy(update={"kernels": workload.kernels}),
        train=TrainConfig(
            batch_size=workload.batch,
            mixed_precision=precision,
            cuda_graph=_CUDA_GRAPHS[mode],
        ),
    )
    accelerator = build_accelerator(recipe.train)
    student = build_student(workload.student, num_classes=workload.classes)
    example = torch.zeros(2, 3, workload.side, workload.side)
    model = build_training_model(recipe.method, student, example=example).train()
    optimizer = build_optimizer(model, recipe.train, accelerator.device)
    batch, losses, numbers = _batch(workload, accelerator.device), EpochLosses(accelerator), count()
    losses.begin_epoch(1)
    with prepared(accelerator, model, optimizer) as (wrapped, wrapped_optimizer):
        work = StepWork(
            model=wrapped,
            optimizer=wrapped_optimizer,
            accelerator=accelerator,
            objective=build_objective(recipe.method),
            losses=losses,
        )
        rehearses = mode == "fused" and accelerator.device.type != "cuda"
        done = GraphedWork(work, _Rehearsed(), fuses=True) if rehearses else graphed(work, recipe)

        def step() -> None:
            number = next(numbers)
            begin_step(wrapped_optimizer, batch, recipe, losses, step=number, steps_per_epoch=_STEPS_OF_AN_EPOCH)
            done(batch)
            losses.check(number + 1)

        yield step


class _Rehearsed:
    """A recorder where there is no GPU: the work, or the program in its place, is done as it is."""

    def apart(self) -> AbstractContextManager[None]:
        return nullcontext()

    def find_wait(self, work: Callable[[], None]) -> str | None:
        work()
        return None

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        return work


@contextmanager
def _engine_warnings() -> Iterator[list[str]]:
    """Collect what the engine says of steps that it does not record, or not by fewer launches."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    loggers, collector = [logging.getLogger(one.__name__) for one in (cuda_graph, fusing)], Collector(logging.WARNING)
    for logger in loggers:
        logger.addHandler(collector)
    try:
        yield messages
    finally:
        for logger in loggers:
            logger.removeHandler(collector)


def _reference_body(workload: Workload, precision: Precision, device: torch.device) -> Callable[[], None]:
    model = ReferenceECD(num_classes=workload.classes, kernels=workload.kernels).to(device).train()
    optimizer = reference_optimizer(model)
    batch = _batch(workload, device)

    def body() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            student, teacher = model(batch.images)
        torch.autograd.backward(reference_loss((student.float(), teacher.float()), batch.labels))
        optimizer.step()

    return body


def _batch(workload: Workload, device: torch.device) -> Batch:
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(workload.batch, 3, workload.side, workload.side, generator=draw)
    labels = torch.randint(workload.classes, (workload.batch,), generator=draw)
    return Batch(images.to(device), labels.to(device), torch.arange(workload.batch, device=device), workload.batch)


def _recorded(body: Callable[[], None], device: torch.device) -> Step:
    """The launch of a CUDA graph of the body, as the engine records its own."""
    recorder = cuda_graph.CudaRecorder(device)
    with recorder.apart():
        for _ in range(_WARM_UP):
            body()
    return recorder.record(body)
