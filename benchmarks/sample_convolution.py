"""Why an ECD step costs what it does: a convolution with a kernel for each sample against one with a shared kernel.

The 3x3 convolutions of ResNet-20's blocks at batch 128, forward and backward, the same products of numbers in both:
the student's in its layout (channels_last), the teacher's as one grouped convolution, and beside it the mixing of
n kernels for each sample. In turns in one process, by shape; sums are over the network's convolutions.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)

from benchmarks.figures import Figure, Report
from ecd_deploy.distill.convolution.sample_convolution import Geometry, convolve_mixed
from ecd_deploy.training.steps.allocator import keep_freed_memory

BATCH, KERNELS, ROUNDS, WARM_UP = 128, 16, 12, 2


@dataclass(frozen=True)
class Shape:
    """Of `count` convolutions of the network; `side` is that of the input."""

    in_channels: int
    out_channels: int
    side: int
    stride: int
    count: int


SHAPES = (
    Shape(16, 16, 32, 1, 6),
    Shape(16, 32, 32, 2, 1),
    Shape(32, 32, 16, 1, 5),
    Shape(32, 64, 16, 2, 1),
    Shape(64, 64, 8, 1, 5),
)


def measure() -> Report:
    """Milliseconds of forward and backward of each way, by shape."""
    keep_freed_memory()
    rows = [_row(shape) for shape in SHAPES]
    sums = {way: sum(row["count"] * row[way] for row in rows) for way in ("shared", "per_sample", "mixing")}
    return Report(
        benchmark="sample_convolution",
        figures=(
            Figure(
                name="convolutions of ResNet-20 with kernels mixed for each sample over shared ones",
                value=sums["per_sample"] / sums["shared"],
                better="lower",
            ),
            Figure(
                name="of that, mixing the kernels and its gradients, over the shared convolutions",
                value=sums["mixing"] / sums["shared"],
                better="lower",
            ),
        ),
        setting={"batch": BATCH, "kernels": KERNELS, "rounds": ROUNDS},
        raw={"milliseconds": rows, "sums": sums},
    )


def _row(shape: Shape) -> dict[str, float]:
    torch.manual_seed(0)
    features = torch.randn(BATCH, shape.in_channels, shape.side, shape.side)
    weight = torch.randn(KERNELS, shape.out_channels, shape.in_channels, 3, 3)
    mixing = torch.softmax(torch.randn(BATCH, KERNELS), dim=1)
    geometry = Geometry((shape.stride,) * 2, (1, 1), (1, 1), 1)
    channels_last = features.to(memory_format=torch.channels_last)
    shared = weight[0].clone().to(memory_format=torch.channels_last)
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "shared": _both(lambda x, w: F.conv2d(x, w, None, shape.stride, 1), channels_last, shared),
        "per_sample": _both(lambda x, m, w: convolve_mixed(x, m, w, None, geometry), features, mixing, weight),
        "mixing": _both(lambda m, w: m @ w.flatten(1), mixing, weight),
    }
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS + WARM_UP):
        for way, work in ways.items():
            started = time.perf_counter()
            work()
            spent[way].append(1e3 * (time.perf_counter() - started))
    medians = {way: statistics.median(times[WARM_UP:]) for way, times in spent.items()}
    return {
        "in_channels": shape.in_channels,
        "out_channels": shape.out_channels,
        "side": shape.side,
        "count": shape.count,
        **medians,
    }


def _both(function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A call of the function and of its backward pass towards all inputs."""
    leaves = [value.detach().requires_grad_() for value in inputs]
    direction = torch.randn_like(function(*leaves).detach())

    def work() -> torch.Tensor:
        return torch.autograd.grad(function(*leaves), leaves, direction)[0]

    return work
