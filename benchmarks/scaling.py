"""How the cost of an ECD step grows with batch, kernels, depth, threads and processes: `make bench-scaling`.

One axis is varied at a time from resnet20, batch 128, n = 16, two threads, one process. Settings are measured
one after the other, each in processes of its own, so a slow minute of the machine shows as a bump.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.figures import RESULTS, Figure, Report, write
from benchmarks.runner import Candidate, Work, interleave
from ecd_deploy.config import TrainConfig
from ecd_deploy.distill import build_training_model, training_loss
from ecd_deploy.method_config import MethodConfig
from ecd_deploy.models import build_student
from ecd_deploy.training.allocator import keep_freed_memory
from ecd_deploy.training.optimizer import build_optimizer

ROUNDS, WARM_UP, SIDE, CLASSES = 3, 1, 32, 100


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Of one measurement; `batch` is over all processes, `threads` are those of each process."""

    depth: int = 20
    batch: int = 128
    kernels: int = 16
    threads: int = 2
    processes: int = 1


BASE = Setting()
AXES: dict[str, tuple[Setting, ...]] = {
    "batch": tuple(replace(BASE, batch=value) for value in (32, 64, 128, 256, 512)),
    "kernels": tuple(replace(BASE, kernels=value) for value in (2, 4, 8, 16, 32)),
    "depth": tuple(replace(BASE, depth=value) for value in (20, 32, 44, 56, 110)),
    "threads": tuple(replace(BASE, threads=value) for value in (1, 2)),
    "processes": (BASE, replace(BASE, threads=1, processes=2)),
}


def measure() -> Report:
    """Seconds of a step and peak memory at each setting."""
    seconds: dict[Setting, tuple[float, ...]] = {}
    peaks: dict[Setting, int] = {}
    for setting in dict.fromkeys(setting for axis in AXES.values() for setting in axis):
        print(f"measuring {setting}", file=sys.stderr)
        candidate = Candidate(name="step", factory="benchmarks.scaling:step", arguments=asdict(setting))
        timings = interleave([candidate], rounds=ROUNDS, warm_up=WARM_UP)
        seconds[setting], peaks[setting] = timings.seconds["step"], timings.peak_bytes["step"]
    points = {
        axis: [
            {
                axis: getattr(setting, axis),
                **asdict(setting),
                "median_seconds": sorted(seconds[setting])[ROUNDS // 2],
                "seconds": seconds[setting],
                "peak_mib_of_first_process": round(peaks[setting] / 2**20),
            }
            for setting in settings
        ]
        for axis, settings in AXES.items()
    }
    base = sorted(seconds[BASE])[ROUNDS // 2]
    figures = [
        Figure(
            name=f"ECD step at {axis} {getattr(setting, axis)} over that at {axis} {getattr(BASE, axis)}",
            value=sorted(seconds[setting])[ROUNDS // 2] / base,
            better="lower",
        )
        for axis, settings in AXES.items()
        for setting in settings
        if setting != BASE
    ]
    return Report(
        benchmark="scaling",
        figures=figures,
        setting={"base": asdict(BASE), "side": SIDE, "rounds": ROUNDS, "warm_up": WARM_UP},
        raw=points,
    )


def step(depth: int, batch: int, kernels: int, threads: int, processes: int) -> Work:
    """An ECD step; with several processes, this one starts the others and leads them."""
    own_batch = batch // processes
    if processes == 1:
        return _step(depth, own_batch, kernels, threads)
    meeting = tempfile.NamedTemporaryFile(delete=False)  # noqa: SIM115 (the processes meet in it, until they end)
    context = multiprocessing.get_context("spawn")
    for rank in range(1, processes):
        arguments = (meeting.name, rank, processes, depth, own_batch, kernels, threads)
        # a daemon: it is ended with this process, which would wait for any other
        context.Process(target=_follow, args=arguments, daemon=True).start()
    distributed.init_process_group("gloo", init_method=f"file://{meeting.name}", rank=0, world_size=processes)
    own = _step(depth, own_batch, kernels, threads)

    def work() -> None:
        _go_on()
        own()

    return work


def _follow(meeting: str, rank: int, processes: int, depth: int, batch: int, kernels: int, threads: int) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes)
    own = _step(depth, batch, kernels, threads)
    while True:
        _go_on()
        own()


def _go_on() -> None:
    """Wait for the first process's word."""
    distributed.broadcast(torch.zeros(1), src=0)


def _step(depth: int, batch: int, kernels: int, threads: int) -> Work:
    keep_freed_memory()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    student = build_student(f"resnet{depth}", num_classes=CLASSES)
    model = build_training_model(MethodConfig(kernels=kernels), student, example=torch.zeros(1, 3, SIDE, SIDE)).train()
    model.layout = torch.channels_last
    optimizer = build_optimizer(model, TrainConfig())
    images, labels = torch.randn(batch, 3, SIDE, SIDE), torch.randint(CLASSES, (batch,))
    wrapped: nn.Module = DistributedDataParallel(model) if distributed.is_initialized() else model

    def work() -> None:
        optimizer.zero_grad()
        loss: Tensor = training_loss(wrapped(images), labels)
        torch.autograd.backward(loss)
        optimizer.step()

    return work


def plot(report: Report, path: Path) -> None:
    """Draw one panel an axis."""
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(report.raw), figsize=(3 * len(report.raw), 3), layout="constrained")
    for panel, (axis, points) in zip(panels, report.raw.items(), strict=True):
        places = [point[axis] for point in points]
        panel.plot(places, [point["median_seconds"] for point in points], marker="o", color="black")
        panel.set(xlabel=axis, xticks=places, ylim=(0, None))
    panels[0].set_ylabel("seconds of an ECD step")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    found = measure()
    write(found)
    plot(found, RESULTS / "scaling.png")
