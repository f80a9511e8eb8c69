# mypy: untyped-calls-exclude=accelerate

"""One training step of each candidate, as the engine does it, on a batch that stays on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from benchmarks.gpu.parts import Precision
from benchmarks.reference import ReferenceECD, reference_loss, reference_optimizer
from ecd_deploy.config import TrainConfig
from ecd_deploy.distill import build_objective, build_training_model
from ecd_deploy.method_config import MethodConfig
from ecd_deploy.models import build_student
from ecd_deploy.training.acceleration import build_accelerator, prepared
from ecd_deploy.training.optimizer import build_optimizer

CandidateName = Literal["student", "ecd", "ecd_star", "mutual", "reference"]
Mode = Literal["eager", "graph"]
Step = Callable[[], object]
"""Does one step; on a GPU it returns before the step has ended."""

METHODS: Mapping[CandidateName, MethodConfig] = {
    "student": MethodConfig(name="plain"),
    "ecd": MethodConfig(name="ecd"),
    "ecd_star": MethodConfig(name="ecd", logits="ensemble"),
    "mutual": MethodConfig(name="joint", logits="mutual"),
}
"""All but the hand-written reference, which is `benchmarks.reference`."""

_WARM_UP = 3


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
    """

    name: str
    student: str
    side: int
    batch: int
    kernels: int
    classes: int = 100
    has_reference: bool = False

    @property
    def candidates(self) -> tuple[CandidateName, ...]:
        """Those that can be measured on it."""
        return (*METHODS, "reference") if self.has_reference else tuple(METHODS)


@contextmanager
def building_step(
    candidate: CandidateName, workload: Workload, precision: Precision, device: torch.device, mode: Mode
) -> Iterator[Step]:
    """Build a candidate and its step; the models are let go of when the context ends."""
    torch.manual_seed(0)
    if candidate == "reference":
        yield _in_mode(_reference_body(workload, precision, device), device, mode)
        return
    config = TrainConfig(batch_size=workload.batch, mixed_precision=precision)
    method = METHODS[candidate].model_copy(update={"kernels": workload.kernels})
    student = build_student(workload.student, num_classes=workload.classes)
    model = build_training_model(method, student, example=torch.zeros(2, 3, workload.side, workload.side)).train()
    optimizer, objective, accelerator = (
        build_optimizer(model, config),
        build_objective(method),
        build_accelerator(config),
    )
    images, labels = _batch(workload, device)
    with prepared(accelerator, model, optimizer) as (wrapped, _):

        def body() -> None:
            optimizer.zero_grad(set_to_none=True)
            accelerator.backward(objective(wrapped(images), labels).total)
            optimizer.step()

        yield _in_mode(body, device, mode)


def _reference_body(workload: Workload, precision: Precision, device: torch.device) -> Step:
    model = ReferenceECD(num_classes=workload.classes, kernels=workload.kernels).to(device).train()
    optimizer = reference_optimizer(model)
    images, labels = _batch(workload, device)

    def body() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            student, teacher = model(images)
        torch.autograd.backward(reference_loss((student.float(), teacher.float()), labels))
        optimizer.step()

    return body


def _batch(workload: Workload, device: torch.device) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(workload.batch, 3, workload.side, workload.side, generator=draw)
    return images.to(device), torch.randint(workload.classes, (workload.batch,), generator=draw).to(device)


def _in_mode(body: Step, device: torch.device, mode: Mode) -> Step:
    """The step as it is or as a CUDA graph, warmed up; without a GPU there is no graph, and it stays as it is."""
    if device.type != "cuda":
        body()
        return body
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            body()
    torch.cuda.current_stream(device).wait_stream(side)
    if mode == "eager":
        return body
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    return graph.replay
