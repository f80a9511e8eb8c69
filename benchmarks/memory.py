"""How good the estimate of `ecd-deploy inspect` is, against real training steps.

It is an estimate of the tensors that torch holds, so the peak of torch's own allocations is its measure. The
peak of resident memory is given too: workspaces, the allocator's leftovers and what a first step loads come on top.
"""

from __future__ import annotations

import timm  # noqa: F401 (here, so that its own memory is not taken for the step's)
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.figures import Figure, Report
from benchmarks.runner import Candidate, Work, interleave
from ecd_deploy.distill import ECDModel, TeacherOptions, training_loss
from ecd_deploy.models import build_student
from ecd_deploy.pipelines.inspect.inspection import inspect_student
from ecd_deploy.pipelines.inspect.subject import Subject
from ecd_deploy.recipe.method import MethodConfig

CLASSES = 100
KERNELS = 16
SETTINGS = (("resnet20", 32, 128), ("timm:mobilenetv3_small_050", 64, 64))
"""Student, side of the images in pixels, batch size."""


def measure() -> Report:
    """Run steps of each student in a process of its own, and compare its peak with the estimate."""
    figures, raw = [], {}
    for student, side, batch_size in SETTINGS:
        arguments = {"student": student, "side": side, "batch_size": batch_size}
        timings = interleave(
            [Candidate(name=student, factory="benchmarks.memory:training_step", arguments=arguments)], rounds=2
        )
        method = MethodConfig(kernels=KERNELS)
        subject = Subject(student=student, classes=CLASSES, image_size=side, method=method)
        estimate = inspect_student(subject).memory
        expected = estimate.total(batch_size)
        allocated = allocated_peak(student, side, batch_size)
        resident = timings.peak_bytes[student]
        raw[student] = {
            "estimated_bytes": expected,
            "allocated_bytes": allocated,
            "resident_bytes": resident,
            **arguments,
        }
        what = f"{student}, {side} pixels, batch {batch_size}"
        figures += [
            Figure(name=f"{what}: torch's peak over the estimate", value=allocated / expected, better="lower"),
            Figure(name=f"{what}: resident peak over the estimate", value=resident / expected, better="lower"),
        ]
    return Report(benchmark="memory", figures=figures, setting={"kernels": KERNELS, "classes": CLASSES}, raw=raw)


def allocated_peak(student: str, side: int, batch_size: int) -> int:
    """Bytes that torch held at the most during a second step: parameters and momentum, and what the step added."""
    step, held = _step(student, side, batch_size)
    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    results = recorded.profiler.kineto_results if recorded.profiler is not None else None
    events = [] if results is None else [event for event in results.events() if event.name() == "[memory]"]
    peak = current = 0
    for event in sorted(events, key=lambda entry: entry.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    return held + peak


def training_step(student: str, side: int, batch_size: int) -> Work:
    """Build what `inspect` describes; one unit of work is one step of SGD with momentum."""
    return _step(student, side, batch_size)[0]


def _step(student: str, side: int, batch_size: int) -> tuple[Work, int]:
    """The step, and the bytes of parameters, momentum and buffers that it finds."""
    images, labels = torch.randn(batch_size, 3, side, side), torch.randint(CLASSES, (batch_size,))
    network = build_student(student, num_classes=CLASSES)
    model = ECDModel(network, TeacherOptions(kernels=KERNELS), stages=(2, 3), example=images[:1]).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(training_loss(model(images), labels))
        optimizer.step()

    held = 2 * sum(weight.nbytes for weight in model.parameters()) + sum(buffer.nbytes for buffer in model.buffers())
    return step, held
