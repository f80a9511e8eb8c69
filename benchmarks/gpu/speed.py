# mypy: untyped-calls-exclude=torch

"""Time and memory of a training step: each candidate, eager, as a CUDA graph, and as one of fewer launches.

In fp32 and bf16; what is compared is timed in turns.
"""

from __future__ import annotations

import gc
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.layers import LayerTiming, summary_of, time_layers
from benchmarks.gpu.parts import Findings, PartRun, Precision, milliseconds
from benchmarks.gpu.steps import CandidateName, Mode, Step, Workload, building_step
from ecd_deploy.records import Record

_MODES: tuple[Mode, ...] = ("eager", "graph", "fused")
_PRECISIONS: tuple[Precision, ...] = ("no", "bf16")
_FEWEST_ROUNDS, _MOST_ROUNDS = 3, 15
_COUNTED_STEPS = 5
_LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
_WAIT = "called a synchronizing CUDA operation"  # torch's words
_BUILDING_SHARE = 0.6  # of a group's seconds; what is not built by then is left out
_MIB = 2**20

CIFAR = Workload(
    name="ResNet-20, 32x32", student="resnet20", side=32, batch=128, kernels=16, has_reference=True, is_stacked=True
)
IMAGENET = Workload(
    name="ResNet-18, 224x224", student="torchvision:resnet18", side=224, batch=64, kernels=8, classes=1000
)
WORKLOADS = (CIFAR, IMAGENET)
_REHEARSED = (
    Workload(
        name="ResNet-20, 8x8", student="resnet20", side=8, batch=4, kernels=2, has_reference=True, has_triton=False
    ),
    Workload(name="ResNet-8, 8x8", student="resnet8", side=8, batch=2, kernels=2, is_stacked=True),
)


class StepTiming(Record):
    """A candidate in one setting.

    Attributes:
        workload: network and size of the images.
        precision: "no" is fp32, with TF32 as torch's defaults have it.
        mode: eager, as a CUDA graph, or as one of fewer launches.
        candidate: whose step.
        milliseconds: of a step, one value a round.
        peak_mib: memory of model, batch and step.
        launches: that the host makes in a step; None without a GPU.
        waits: of the host for the device in a step; None without a GPU.
        error: why there is nothing.
    """

    workload: str
    precision: Precision
    mode: Mode
    candidate: CandidateName
    milliseconds: tuple[float, ...] = ()
    peak_mib: float | None = None
    launches: float | None = None
    waits: float | None = None
    error: str | None = None

    @property
    def median(self) -> float:
        """Median milliseconds of a step; not for one with an error."""
        return statistics.median(self.milliseconds)

    @property
    def title(self) -> str:
        """The setting in words."""
        precision = "fp32" if self.precision == "no" else self.precision
        return f"{self.workload}, {precision}, {self.mode}, {self.candidate}"


class Speed(Findings):
    """All timings so far.

    Attributes:
        planned: candidates in all settings.
        batches: images of a step of each workload.
        timings: that there are, or why not.
        layers: dynamic convolutions of each shape, by each backend.
    """

    planned: int
    batches: dict[str, int]
    timings: tuple[StepTiming, ...] = ()
    layers: tuple[LayerTiming, ...] = ()

    def faults(self) -> tuple[str, ...]:
        """Steps that could not be built or done, and those that were not reached."""
        failed = [f"{timing.title}: {timing.error}" for timing in self.timings if timing.error is not None]
        if len(self.timings) < self.planned:
            failed.append(f"only {len(self.timings)} of {self.planned} steps were reached in the time")
        return tuple(failed)

    def summary(self) -> tuple[str, ...]:
        """A line for each setting: milliseconds of each candidate, and what ECD costs over the others."""
        settings = dict.fromkeys((timing.workload, timing.precision, timing.mode) for timing in self.timings)
        lines = []
        for workload, precision, mode in settings:
            found = {
                timing.candidate: timing
                for timing in self.timings
                if (timing.workload, timing.precision, timing.mode) == (workload, precision, mode)
                and timing.error is None
            }
            if found:
                title = next(iter(found.values())).title.rpartition(", ")[0]
                lines.append(f"{title}: {_milliseconds(found)}{_ratios(found)}{_counts(found)}")
        return (*lines, *summary_of(self.layers))


@dataclass(frozen=True)
class _Built:
    """A step that is ready, and what is known of it beside its time."""

    timing: StepTiming
    step: Step


def measure_speed(run: PartRun) -> Speed:
    """Measure each workload in each precision; what is compared is timed in turns."""
    workloads = _REHEARSED if run.tiny else WORKLOADS
    planned = sum(
        len(workload.candidates(run.device, mode, precision))
        for workload in workloads
        for mode in _MODES
        for precision in _PRECISIONS
    )
    findings = Speed(planned=planned, batches={workload.name: workload.batch for workload in workloads})
    groups = [(workload, precision) for workload in workloads for precision in _PRECISIONS]
    for number, (workload, precision) in enumerate(groups):
        until = time.monotonic() + max(run.left(), 0.0) / (len(groups) + 1 - number)
        timings = _measure_group(workload, precision, run, until)
        findings = findings.model_copy(update={"timings": (*findings.timings, *timings)})
        run.keep(findings)
        gc.collect()
        if run.device.type == "cuda":
            torch.cuda.empty_cache()
    for workload in workloads if run.left() > 0 or run.tiny else ():
        findings = findings.model_copy(update={"layers": (*findings.layers, *time_layers(workload, run))})
        run.keep(findings)
    return findings


def _measure_group(workload: Workload, precision: Precision, run: PartRun, until: float) -> list[StepTiming]:
    """Build all candidates in both modes, then time them in turns."""
    built_until = time.monotonic() + (until - time.monotonic()) * _BUILDING_SHARE
    ready: list[_Built] = []
    failed: list[StepTiming] = []
    with ExitStack() as stack:
        for mode in _MODES:
            for candidate in workload.candidates(run.device, mode, precision):
                if time.monotonic() > built_until and not run.tiny:
                    continue
                timing = StepTiming(workload=workload.name, precision=precision, mode=mode, candidate=candidate)
                try:
                    ready.append(_build(stack, timing, workload, run.device))
                except Exception as error:  # noqa: BLE001 (recorded as this step's fault; the others are measured)
                    failed.append(timing.model_copy(update={"error": f"{type(error).__name__}: {error}"}))
        seconds = _time_in_turns([built.step for built in ready], run, until)
    timed = [
        built.timing.model_copy(update={"milliseconds": tuple(round(value, 4) for value in values)})
        for built, values in zip(ready, seconds, strict=True)
    ]
    return [*timed, *failed]


def _build(stack: ExitStack, timing: StepTiming, workload: Workload, device: torch.device) -> _Built:
    is_cuda = device.type == "cuda"
    before = 0
    if is_cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    step = stack.enter_context(building_step(timing.candidate, workload, timing.precision, device, timing.mode))
    if not is_cuda:
        return _Built(timing, step)
    step()  # of a reference that is eager, the first
    torch.cuda.synchronize(device)
    peak = (torch.cuda.max_memory_allocated(device) - before) / _MIB
    counted = {"peak_mib": round(peak, 1), "launches": _launches(step, device), "waits": _waits(step, device)}
    return _Built(timing.model_copy(update=counted), step)


def _launches(step: Step, device: torch.device) -> float:
    """Launches of kernels, copies and graphs by the host in a step."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(_COUNTED_STEPS):
            step()
        torch.cuda.synchronize(device)
    launches = [event for event in profiler.events() or () if event.name.startswith(_LAUNCHES)]
    return len(launches) / _COUNTED_STEPS


def _waits(step: Step, device: torch.device) -> float:
    """Waits of the host for the device in a step, as far as torch knows of them."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.synchronize(device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in range(_COUNTED_STEPS):
                step()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum(_WAIT in str(warning.message) for warning in caught) / _COUNTED_STEPS


def _time_in_turns(steps: Sequence[Step], run: PartRun, until: float) -> list[list[float]]:
    """Milliseconds of a step, by round, for each of the steps; the order is turned from round to round."""
    found: list[list[float]] = [[] for _ in steps]
    inner = 1 if run.tiny else 5
    for turn in range(1 if run.tiny else _MOST_ROUNDS):
        if turn >= _FEWEST_ROUNDS and time.monotonic() > until:
            break
        for place in range(len(steps)):
            number = (turn + place) % len(steps)
            found[number].append(milliseconds(steps[number], run.device, inner))
    return found


def _milliseconds(found: Mapping[CandidateName, StepTiming]) -> str:
    return ", ".join(f"{name} {timing.median:.2f} ms" for name, timing in found.items())


def _ratios(found: Mapping[CandidateName, StepTiming]) -> str:
    """ECD over the student and mutual learning, the reference and stacks over ECD: medians of the rounds' ratios."""
    pairs: tuple[tuple[str, CandidateName, CandidateName], ...] = (
        ("ECD/student", "ecd", "student"),
        ("ECD by Triton/student", "ecd_triton", "student"),
        ("ECD/ECD by Triton", "ecd", "ecd_triton"),
        ("ECD/mutual", "ecd", "mutual"),
        ("reference/ECD", "reference", "ecd"),
        ("three stacked/ECD", "ecd_x3", "ecd"),
        ("three stacked/student", "student_x3", "student"),
    )
    ratios = [
        f"{title} {_median_ratio(found[over].milliseconds, found[under].milliseconds):.2f}"
        for title, over, under in pairs
        if over in found and under in found
    ]
    return "; " + ", ".join(ratios) if ratios else ""


def _counts(found: Mapping[CandidateName, StepTiming]) -> str:
    """What a step of ECD takes beside time, by either backend; nothing without a GPU."""
    known = [one for name, one in found.items() if name in ("ecd", "ecd_triton") and one.peak_mib is not None]
    return "".join(
        f"; {one.candidate}: {one.launches:g} launches and {one.waits:g} waits a step, {one.peak_mib:.0f} MiB"
        for one in known
    )


def _median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    return statistics.median(above / below for above, below in zip(over, under, strict=True))
