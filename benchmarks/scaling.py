"""How the cost of an ECD step grows with batch, kernels, depth, threads and processes: `make bench-scaling`.

One axis is varied at a time from resnet20, batch 128, n = 16, two threads, one process. The settings of an axis are
measured in turns, each in processes of its own.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.figures import RESULTS, Figure, Report, write
from benchmarks.runner import Candidate, Work, interleave
from ecd_deploy.distill import training_loss
from ecd_deploy.models import build_student
from ecd_deploy.recipe.method import MethodConfig
from ecd_deploy.recipe.train import TrainConfig
from ecd_deploy.training.methods import build_training_model
from ecd_deploy.training.steps.allocator import keep_freed_memory
from ecd_deploy.training.steps.optimizer import build_optimizer

ROUNDS, WARM_UP, SIDE, CLASSES = 5, 1, 32, 100


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
    points: dict[str, list[dict[str, Any]]] = {}
    figures: list[Figure] = []
    for axis, settings in AXES.items():
        print(f"measuring {axis}", file=sys.stderr)
        timings = interleave([_candidate(setting) for setting in settings], rounds=ROUNDS, warm_up=WARM_UP)
        names = {setting: _candidate(setting).name for setting in settings}
        points[axis] = [
            {
                **asdict(setting),
                "median_seconds": timings.median(names[setting]),
                "seconds": timings.seconds[names[setting]],
                "peak_mib_of_first_process": round(timings.peak_bytes[names[setting]] / 2**20),
            }
            for setting in settings
        ]
        for setting in settings:
            if setting != BASE:
                name = f"ECD step at {axis} {getattr(setting, axis)} over that at {axis} {getattr(BASE, axis)}"
                figures.append(Figure.over(name, timings.ratios(names[setting], names[BASE]), better="lower"))
    return Report(
        benchmark="scaling",
        figures=figures,
        setting={"base": asdict(BASE), "side": SIDE, "rounds": ROUNDS, "warm_up": WARM_UP},
        raw=points,
    )


def _candidate(setting: Setting) -> Candidate:
    return Candidate(name=str(setting), factory="benchmarks.scaling:step", arguments=asdict(setting))


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


def plot(measured: Mapping[str, Any], path: Path) -> None:
    """Draw one panel an axis, as SVG whose bytes depend on the points alone."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "scaling"
    figure, panels = plt.subplots(1, len(measured), figsize=(3 * len(measured), 3), layout="constrained")
    for panel, (axis, points) in zip(panels, measured.items(), strict=True):
        places = [point[axis] for point in points]
        panel.plot(places, [point["median_seconds"] for point in points], marker="o", color="black")
        panel.set(xlabel=axis, xticks=places, ylim=(0, None))
    panels[0].set_ylabel("seconds of an ECD step")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    found = measure()
    write(found)
    plot(found.raw, RESULTS / "scaling.svg")
